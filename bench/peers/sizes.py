"""The models that are measured; the same numbers are in crates/bench/src/lib.rs."""

SIZES = {
    "tiny": dict(
        text=dict(vocab_size=1024, hidden_size=128, intermediate_size=384, num_hidden_layers=4, num_attention_heads=4,
                  num_key_value_heads=4, head_dim=32, rope_theta=100.0, mrope_section=[6, 5, 5]),
        vision=dict(depth=3, hidden_size=96, intermediate_size=192, num_heads=4, num_position_embeddings=144,
                    out_hidden_size=128, deepstack_visual_indexes=[0]),
        special=1021,
    ),
    "100m": dict(
        text=dict(vocab_size=8192, hidden_size=768, intermediate_size=2048, num_hidden_layers=12, num_attention_heads=12,
                  num_key_value_heads=4, head_dim=64, rope_theta=5e6, mrope_section=[12, 10, 10]),
        vision=dict(depth=4, hidden_size=384, intermediate_size=1536, num_heads=6, num_position_embeddings=576,
                    out_hidden_size=768, deepstack_visual_indexes=[1, 3]),
        special=8189,
    ),
}


def hf_config(size):
    from transformers import Qwen3VLConfig

    spec = SIZES[size]
    text = dict(spec["text"])
    rope = dict(rope_type="default", rope_theta=text.pop("rope_theta"), mrope_interleaved=True, mrope_section=text.pop("mrope_section"))
    text |= dict(rope_parameters=rope, hidden_act="silu", attention_bias=False, rms_norm_eps=1e-6, tie_word_embeddings=True,
                 bos_token_id=None, eos_token_id=None, pad_token_id=None)
    vision = dict(spec["vision"], in_channels=3, patch_size=16, temporal_patch_size=2, spatial_merge_size=2)
    first = spec["special"]
    return Qwen3VLConfig(text_config=text, vision_config=vision, image_token_id=first, vision_start_token_id=first + 1,
                         vision_end_token_id=first + 2, video_token_id=first, tie_word_embeddings=True)
