"""Random small Qwen3-VL models, dense and with experts: what transformers computes against what hypereyes does.

Every model is written to a folder as published ones are (either style of config.json, experts in either orientation, one file or
shards, f32, bf16 or f16), read back by transformers in f32, and asked for log-probs of texts and pictures
(`hypereyes logprobs --cases`) and for greedy continuations (`hypereyes generate`). Needs torch and transformers.
"""

import argparse
import json
import random
import subprocess
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration, Qwen3VLMoeConfig, Qwen3VLMoeForConditionalGeneration
from transformers.utils import logging

# Largest difference of a log-prob that counts as the same.
TOLERANCE = 2e-4
NEW = 24


def draw(rng):
    """A configuration, and how its folder is written."""
    sparse, half, kv = rng.random() < 0.5, rng.choice([2, 3, 4, 6, 8, 16, 32]), rng.choice([1, 2, 3, 4])
    hidden, layers, depth = rng.choice([16, 32, 33, 64, 96, 100]), rng.randint(1, 5), rng.randint(1, 5)
    rows = rng.randint(0, half)
    columns = rng.randint(0, half - rows)
    text = dict(
        vocab_size=rng.choice([97, 320, 1024]),
        hidden_size=hidden,
        head_dim=2 * half,
        num_key_value_heads=kv,
        num_attention_heads=kv * rng.choice([1, 2, 4]),
        num_hidden_layers=layers,
        intermediate_size=rng.choice([8, 31, 96]),
        rms_norm_eps=rng.choice([1e-6, 1e-5]),
        rope_parameters=dict(
            rope_type="default", mrope_interleaved=True, rope_theta=rng.choice([100.0, 1e4, 5e6]), mrope_section=[half - rows - columns, rows, columns]
        ),
    )
    if sparse:
        count = rng.choice([1, 2, 5, 8, 30])
        text |= dict(
            num_experts=count,
            num_experts_per_tok=rng.randint(1, min(count, 8)),
            moe_intermediate_size=rng.choice([5, 24, 40]),
            decoder_sparse_step=rng.choice([1, 1, 2]),
            mlp_only_layers=rng.choice([[], [], [0]]),
        )
    heads = rng.choice([1, 2, 4])
    vision = dict(
        depth=depth,
        deepstack_visual_indexes=sorted(rng.sample(range(depth), rng.randint(0, min(depth, layers, 3)))),
        num_heads=heads,
        hidden_size=heads * rng.choice([4, 8, 16]),
        intermediate_size=rng.choice([8, 37, 64]),
        num_position_embeddings=rng.choice([4, 9, 64, 144]),
        out_hidden_size=hidden,
        patch_size=rng.choice([4, 8, 16]),
        spatial_merge_size=rng.choice([1, 2, 2, 3]),
        temporal_patch_size=rng.choice([1, 2]),
    )
    top = {name: text["vocab_size"] - 4 + at for at, name in enumerate(["image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id"])}
    config = (Qwen3VLMoeConfig if sparse else Qwen3VLConfig)(text_config=text, vision_config=vision, tie_word_embeddings=rng.random() < 0.4, **top)
    files = dict(older=rng.random() < 0.5, turned=sparse and rng.random() < 0.5, dtype=rng.choice([torch.float32, torch.bfloat16, torch.float16]), shard=rng.choice(["5GB", "100KB"]))
    return config, files


def fresh(config, seed):
    sparse = isinstance(config, Qwen3VLMoeConfig)
    model = (Qwen3VLMoeForConditionalGeneration if sparse else Qwen3VLForConditionalGeneration)(config).float()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            gain = parameter.ndim == 1 and "norm" in name and name.endswith("weight")
            parameter.copy_(noise * 0.08 if parameter.ndim > 1 else noise * 0.05 + gain)
    model.tie_weights()
    return model


def write(model, folder, older, turned, dtype, shard):
    """The folder; `older` is the config of the first published models, `turned` the experts as transformers 4 kept them."""
    model.to(dtype).save_pretrained(folder, max_shard_size=shard)
    own = dict(model.named_parameters())
    for path in folder.glob("*.safetensors"):
        tensors = load_file(path)
        for name in [name for name in tensors if name.endswith(("experts.gate_up_proj", "experts.down_proj"))]:
            tensors[name] = (own[name].transpose(1, 2) if turned else own[name]).detach().contiguous()
        save_file(tensors, path, metadata={"format": "pt"})
    if older:
        path = folder / "config.json"
        config = json.loads(path.read_text())
        text = config["text_config"]
        rope = text.pop("rope_parameters")
        text |= dict(rope_theta=rope.pop("rope_theta"), rope_scaling=rope)
        if "num_local_experts" in text:
            text["num_experts"] = text.pop("num_local_experts")
        config["vision_config"].pop("rope_parameters", None)
        path.write_text(json.dumps(config))


def case(config, rng, pictures):
    """Text around pictures of so many tokens by so many."""
    vision, top = config.vision_config, config.text_config.vocab_size - 4
    words = lambda count: [rng.randrange(top) for _ in range(count)]
    ids = words(rng.randint(0, 5))
    for rows, columns in pictures:
        ids += [config.vision_start_token_id, *[config.image_token_id] * (rows * columns), config.vision_end_token_id, *words(3)]
    given = dict(input_ids=torch.tensor(ids + words(rng.randint(2, 30)), dtype=torch.int32))
    if pictures:
        merge, width = vision.spatial_merge_size, vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
        grids = torch.tensor([[1, rows * merge, columns * merge] for rows, columns in pictures], dtype=torch.int32)
        generator = torch.Generator().manual_seed(rng.randrange(2**30))
        given |= dict(image_grid_thw=grids, pixel_values=torch.rand(int(grids.prod(1).sum()), width, generator=generator) * 2 - 1)
    return given


def logprobs(model, given):
    ids = given["input_ids"].long()[None]
    seen = {name: given[name] for name in ("pixel_values", "image_grid_thw") if name in given}
    if seen:
        seen["image_grid_thw"] = seen["image_grid_thw"].long()
        seen["mm_token_type_ids"] = (ids == model.config.image_token_id).int()
    model.model.rope_deltas = None
    logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False, **seen).logits[0]
    return torch.log_softmax(logits.float(), -1)[:-1].gather(1, ids[0, 1:, None])[:, 0]


def greedy(model, prompt):
    ids = torch.tensor([prompt])
    model.model.rope_deltas = None
    return model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=NEW, pad_token_id=0)[0, len(prompt) :].tolist()


def run(program, arguments, text=""):
    done = subprocess.run([program, *arguments], input=text, capture_output=True, text=True, timeout=120)
    if done.returncode:
        raise SystemExit(f"{arguments[0]} failed: {done.stderr.strip()[-500:]}")
    return done.stdout


@torch.no_grad()
def compare(program, seed, folder):
    """Largest difference of a log-prob, and how many greedy continuations of how many are the same."""
    rng = random.Random(seed)
    config, files = draw(rng)
    write(fresh(config, seed), folder, **files)
    kind = Qwen3VLMoeForConditionalGeneration if isinstance(config, Qwen3VLMoeConfig) else Qwen3VLForConditionalGeneration
    model = kind.from_pretrained(folder, dtype=torch.float32).eval()
    if kind is Qwen3VLMoeForConditionalGeneration:
        model.set_experts_implementation("eager")
    cases = [case(config, rng, pictures) for pictures in ([], [(2, 3)], [(3, 2), (2, 2), (1, 5)], [(7, 9)])]
    save_file({f"case{at}.{name}": tensor for at, given in enumerate(cases) for name, tensor in given.items()}, folder / "cases.safetensors")
    said = json.loads(run(program, ["logprobs", "--model", str(folder), "--cases", str(folder / "cases.safetensors"), "--json"]))
    far = max((torch.tensor(answer["next_logprobs"]) - logprobs(model, given)).abs().max().item() for answer, given in zip(said, cases, strict=True))
    prompts = [[rng.randrange(config.text_config.vocab_size - 4) for _ in range(count)] for count in (1, 2, 5, 40)]
    lines = "".join(json.dumps(dict(id=at, input_ids=prompt)) + "\n" for at, prompt in enumerate(prompts))
    given = [json.loads(line)["output_ids"] for line in run(program, ["generate", "--model", str(folder), "--greedy", "--max-new-tokens", str(NEW), "--json"], lines).splitlines()]
    return far, sum(ours == greedy(model, prompt) for ours, prompt in zip(given, prompts, strict=True)), len(prompts)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hypereyes", default="target/release/hypereyes")
    parser.add_argument("--models", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(1)
    worst, same, of = 0.0, 0, 0
    for seed in range(args.seed, args.seed + args.models):
        with tempfile.TemporaryDirectory() as folder:
            far, agree, asked = compare(args.hypereyes, seed, Path(folder))
        if far > TOLERANCE or agree < asked:
            print(json.dumps(dict(seed=seed, worst=far, greedy=agree, of=asked)), flush=True)
        worst, same, of = max(worst, far), same + agree, of + asked
    print(json.dumps(dict(models=args.models, worst_logprob=worst, greedy_same=same, greedy=of)))
