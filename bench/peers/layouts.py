"""Model folders as people publish and save them: what transformers makes of messages with pictures against `hypereyes generate`.

Each folder holds a random small model under random names (with or without `model.`, a tied table under either name, extras
beside it, shards), picture settings in one of their two places, a chat template in one of its five, and is asked for greedy
continuations of random dialogues: several turns, thoughts, pictures (PNG and JPEG, some turned by EXIF) anywhere among texts,
and control tokens in texts only where neither side may take them for control tokens. Needs torch, transformers and Pillow.
"""

import argparse
import json
import random
import subprocess
import tempfile
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration, Qwen3VLMoeConfig, Qwen3VLMoeForConditionalGeneration
from transformers.image_utils import load_image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.utils import logging
from transformers.utils.chat_template_utils import render_jinja_template

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
PLAIN = ["<think>", "</think>", "<tool_call>", "</tool_call>"]
NEW = 10
# Logits that differ by less may come in either order: sums are rounded otherwise.
TIE = 1e-3
WORDS = ["Which", " one", " has", " 12", "\n", "\n\n", "  ", "é", "日本", "a<b", "'s", "?", "Picture 1:", "<tool_response>", "x\ty"]

BODY = "{%- macro body(c) %}{%- if c is string %}{{- c }}{%- else %}{%- for p in c %}{%- if 'image' in p or p.type == 'image' %}{{- '<|vision_start|><|image_pad|><|vision_end|>' }}{%- elif 'text' in p %}{{- p.text }}{%- endif %}{%- endfor %}{%- endif %}{%- endmacro %}"
TEMPLATES = {
    "plain": BODY + "{%- for m in messages %}{{- '<|im_start|>' + m.role + '\\n' + body(m.content) + '<|im_end|>\\n' }}{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}",
    "trimmed": BODY + "{%- for m in messages %}{{- '<|im_start|>' ~ m.role ~ '\\n' ~ (body(m.content) | trim) ~ '<|im_end|>\\n' }}{%- endfor %}{{- '<|im_start|>assistant\\n' if add_generation_prompt }}",
    "generation": BODY + "{% for m in messages %}\n    {{- '<|im_start|>' + m.role + '\\n' }}\n    {%- if m.role == 'assistant' %}\n        {% generation %}\n        {{- body(m.content) + '<|im_end|>' }}\n        {%- endgeneration %}\n    {%- else %}\n        {{- body(m.content) + '<|im_end|>' }}\n    {%- endif %}\n    {{- '\\n' }}\n{%- endfor %}\n{%- if add_generation_prompt %}\n    {{- '<|im_start|>assistant\\n' }}\n{%- endif %}\n",
    "thinking": BODY + "{%- set ns = namespace(last=messages|length - 1, open=true) %}{%- for m in messages[::-1] %}{%- set at = messages|length - 1 - loop.index0 %}{%- if ns.open and m.role == 'user' and not (body(m.content).startswith('<tool_response>') and body(m.content).endswith('</tool_response>')) %}{%- set ns.open = false %}{%- set ns.last = at %}{%- endif %}{%- endfor %}{%- for m in messages %}{%- set content = body(m.content) %}{%- if m.role == 'assistant' %}{%- set thought = '' %}{%- if m.reasoning_content is string %}{%- set thought = m.reasoning_content %}{%- elif '</think>' in content %}{%- set thought = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}{%- set content = content.split('</think>')[-1].lstrip('\\n') %}{%- endif %}{%- if loop.index0 > ns.last and (loop.last or thought) %}{{- '<|im_start|>assistant\\n<think>\\n' + thought.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}{%- else %}{{- '<|im_start|>assistant\\n' + content }}{%- endif %}{{- '<|im_end|>\\n' }}{%- else %}{{- '<|im_start|>' + m.role + '\\n' + content + '<|im_end|>\\n' }}{%- endif %}{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n<think>\\n' }}{%- endif %}",
    "numbered": "{%- set n = namespace(at=0) %}{%- for m in messages %}{%- if loop.first and m.role != 'system' %}{{- '<|im_start|>system\\nYou see pictures. ' + eos_token|length|string + '<|im_end|>\\n' }}{%- endif %}{{- '<|im_start|>' + m.role + '\\n' }}{%- if m.content is string %}{{- m.content }}{%- else %}{%- for p in m.content %}{%- if p.type == 'text' %}{{- p.text }}{% continue %}{%- endif %}{%- set n.at = n.at + 1 %}{{- 'Picture ' ~ n.at ~ ': <|vision_start|><|image_pad|><|vision_end|>' }}{%- endfor %}{%- endif %}{%- if m.tool_calls %}{{- '<tool_call>' + m.tool_calls | tojson + '</tool_call>' }}{%- endif %}{{- '<|im_end|>\\n' }}{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}",
}


def tokenizer(rng, path):
    """A byte-level BPE with merges, splitting words as GPT-2 does."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    made.decoder = decoders.ByteLevel()
    text = ["".join(rng.choice(WORDS) for _ in range(40)) + "system user assistant Picture" for _ in range(30)]
    made.train_from_iterator(text, trainers.BpeTrainer(vocab_size=256 + 60, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    made.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in SPECIAL])
    made.add_tokens([AddedToken(name, special=False, normalized=False) for name in PLAIN])
    made.save(str(path))
    return made


def small(rng, ids):
    sparse = rng.random() < 0.4
    text = dict(vocab_size=400, hidden_size=32, head_dim=16, num_key_value_heads=1, num_attention_heads=2, num_hidden_layers=2, intermediate_size=48, eos_token_id=ids["<|im_end|>"])
    text["rope_parameters"] = dict(rope_type="default", mrope_interleaved=True, rope_theta=1e4, mrope_section=[4, 2, 2])
    if sparse:
        text |= dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=24)
    vision = dict(depth=2, deepstack_visual_indexes=[0], num_heads=1, hidden_size=16, intermediate_size=32, num_position_embeddings=16, out_hidden_size=32, patch_size=8, spatial_merge_size=2)
    named = dict(image_token_id=ids["<|image_pad|>"], video_token_id=ids["<|video_pad|>"], vision_start_token_id=ids["<|vision_start|>"], vision_end_token_id=ids["<|vision_end|>"])
    config = (Qwen3VLMoeConfig if sparse else Qwen3VLConfig)(text_config=text, vision_config=vision, tie_word_embeddings=rng.random() < 0.6, **named)
    kind = Qwen3VLMoeForConditionalGeneration if sparse else Qwen3VLForConditionalGeneration
    model = kind(config).float()
    generator = torch.Generator().manual_seed(rng.randrange(2**30))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            gain = parameter.ndim == 1 and "norm" in name and name.endswith("weight")
            parameter.copy_(noise * 0.3 if parameter.ndim > 1 else noise * 0.05 + gain)
    model.tie_weights()
    return kind, model


def weights(rng, model, folder, foreign):
    """The tensors under other names; whether transformers takes these too."""
    model.save_pretrained(folder, max_shard_size=rng.choice(["5GB", "60KB"]))
    theirs = True
    paths = sorted(folder.glob("*.safetensors"))
    tied, style = model.config.tie_word_embeddings, rng.choice(["plain", "bare", "older", "parts"] if foreign else ["plain", "bare"])
    head = tied and rng.random() < 0.5
    whole = {}
    for path in paths:
        whole[path] = load_file(path)
    tensors = {name: (path, tensor) for path, held in whole.items() for name, tensor in held.items()}
    renamed = {path: {} for path in paths}
    for name, (path, tensor) in tensors.items():
        if head and name == "model.language_model.embed_tokens.weight":
            name = "lm_head.weight"
        elif style == "bare":
            name = name.removeprefix("model.")
        elif style == "older" and name.startswith("model.language_model."):
            name, theirs = "language_model.model." + name.removeprefix("model.language_model."), False
        elif style == "parts" and ".mlp.experts." in name:
            theirs = False
            layer = name.rsplit(".", 1)[0]
            own = dict(model.named_parameters())[name].detach()
            for at, expert in enumerate(own):
                if name.endswith("gate_up_proj"):
                    for part, half in zip(["gate_proj", "up_proj"], expert.chunk(2)):
                        renamed[path][f"{layer}.{at}.{part}.weight"] = half.contiguous()
                else:
                    renamed[path][f"{layer}.{at}.down_proj.weight"] = expert.contiguous()
            continue
        renamed[path][name] = tensor
    if rng.random() < 0.5:
        extras = {"model.language_model.rotary_emb.inv_freq": torch.ones(8), "v_head.summary.weight": torch.ones(1, 32), "position_ids": torch.arange(4)}
        renamed[rng.choice(paths)] |= dict(rng.sample(sorted(extras.items()), rng.randint(1, 3)))
    if len(paths) > 1:
        twin = rng.choice([name for name in renamed[paths[0]]])
        renamed[paths[-1]][twin] = renamed[paths[0]][twin].clone()
        # Of a file that the index names all the same: one that it does not name at all is not read by anybody.
        left_out = rng.choice([name for path in paths[1:] if len(renamed[path]) > 2 for name in renamed[path] if name != twin] or [None])
        index = {name: path.name for path in paths for name in renamed[path] if name != left_out}
        (folder / "model.safetensors.index.json").write_text(json.dumps(dict(metadata={}, weight_map=index)))
    for path in paths:
        save_file(renamed[path], path, metadata={"format": "pt"})
    return theirs, f"{style}{' head' if head else ''} {len(paths)} files"


def beside(rng, folder, ids):
    """Picture settings and the template in one of their places; what transformers takes of them."""
    settings = lambda most: dict(image_processor_type="Qwen2VLImageProcessor", patch_size=8, temporal_patch_size=2, merge_size=2, image_mean=[0.5] * 3, image_std=[0.5] * 3, size=dict(shortest_edge=1024, longest_edge=most), resample=3, rescale_factor=1 / 255, do_resize=True, do_rescale=True, do_normalize=True, do_convert_rgb=True)
    most, place = rng.choice([2048, 4096, 9999]), rng.choice(["nested", "flat", "both"])
    nested = dict(processor_class="Qwen3VLProcessor")
    if place != "flat":
        nested["image_processor"] = settings(most)
    if place != "nested":
        (folder / "preprocessor_config.json").write_text(json.dumps(settings(most if place == "flat" else 1024)))
    name = rng.choice(sorted(TEMPLATES))
    template, decoy = TEMPLATES[name], "{{ raise_exception('the wrong one') }}"
    order = ["processor", "json", "jinja", "tokenizer"]
    first = rng.randrange(4)
    tokens = dict(tokenizer_class="PreTrainedTokenizerFast", eos_token="<|im_end|>", pad_token="<|endoftext|>")
    for at in range(first, 4):
        if at > first and rng.random() < 0.5:
            continue
        text = template if at == first else decoy
        if order[at] == "processor":
            nested["chat_template"] = text
        elif order[at] == "json":
            (folder / "chat_template.json").write_text(json.dumps(dict(chat_template=text)))
        elif order[at] == "jinja":
            (folder / "chat_template.jinja").write_text(text)
        else:
            tokens["chat_template"] = text if rng.random() < 0.5 else [dict(name="tool_use", template=decoy), dict(name="default", template=text)]
    (folder / "processor_config.json").write_text(json.dumps(nested))
    (folder / "tokenizer_config.json").write_text(json.dumps(tokens))
    (folder / "generation_config.json").write_text(json.dumps(dict(eos_token_id=[ids["<|im_end|>"], ids["<|endoftext|>"]], pad_token_id=ids["<|endoftext|>"])))
    return Qwen2VLImageProcessorPil(**settings(most)), template, f"{place} {name} in {order[first]}"


def picture(rng, path):
    """A picture, PNG or JPEG, perhaps stored turned. JPEG decoders differ a little, so JPEGs are of one colour; transformers' two
    resizers differ by a level, so the sides need no resizing (`crates/pictures/tests/it/golden.rs` compares that)."""
    width, height = rng.choice([(32, 32), (32, 48), (48, 32), (64, 16), (16, 80), (32, 64), (112, 16)])
    jpeg = rng.random() < 0.3
    one = tuple(rng.randrange(256) for _ in range(3))
    image = Image.new("RGB", (width, height), one)
    if not jpeg:
        image.putdata([((x * 5 + one[0]) % 256, (y * 7 + one[1]) % 256, (x * y) % 256) for y in range(height) for x in range(width)])
        image = image.convert(rng.choice(["RGB", "RGB", "L", "P"]))
    exif = Image.Exif()
    exif[0x0112] = rng.choice([1, 2, 3, 4, 5, 6, 7, 8])
    path = path.with_suffix(".jpg" if jpeg else ".png")
    image.save(path, exif=exif.tobytes())
    return path


def dialogue(rng, folder):
    words = lambda: "".join(rng.choice(WORDS) for _ in range(rng.randint(1, 6)))
    count = 0

    def content(pictures):
        nonlocal count
        if rng.random() < 0.4:
            return words()
        parts = []
        for _ in range(rng.randint(1, 4)):
            if pictures and rng.random() < 0.5:
                path = str(picture(rng, folder / f"picture{count}"))
                count += 1
                parts.append(rng.choice([dict(type="image", image=path), dict(type="image", path=path), dict(type="image_url", image_url=dict(url=path))]))
            else:
                parts.append(dict(type="text", text=words()))
        return parts

    messages = [dict(role="system", content=content(rng.random() < 0.2))] if rng.random() < 0.5 else []
    for turn in range(rng.randint(1, 3)):
        if turn:
            said = rng.choice(["", "<think>\nmuch\n</think>\n\n"]) + words()
            answer = dict(role="assistant", content=rng.choice([said, [dict(type="text", text=said)]]))
            if rng.random() < 0.2:
                answer["reasoning_content"] = words()
            if rng.random() < 0.2:
                answer["tool_calls"] = [dict(name="f", arguments=dict(b=1.5, a=["é", None, True]))]
            messages.append(answer)
        messages.append(dict(role="user", content=content(True)))
    return messages


def answer(model, made, processor, template, messages):
    """Greedy continuation in transformers: images in the order of their parts, placeholders in the order of the rendered text."""
    paths = [part.get("image") or part.get("path") or part["image_url"]["url"] for message in messages if isinstance(message["content"], list) for part in message["content"] if part["type"] != "text"]
    as_image = lambda part: dict(type="image", url=part["image_url"]["url"]) if part["type"] == "image_url" else part
    shown = [message | dict(content=[as_image(part) for part in message["content"]]) if isinstance(message["content"], list) else message for message in messages]
    text = render_jinja_template(conversations=[shown], chat_template=template, add_generation_prompt=True, eos_token="<|im_end|>", pad_token="<|endoftext|>")[0][0]
    seen = {}
    if paths:
        cut = processor([load_image(path) for path in paths], return_tensors="pt")
        sizes = iter((cut["image_grid_thw"].prod(-1) // 4).tolist())
        parts = text.split("<|image_pad|>")
        assert len(parts) == len(paths) + 1, text
        text = parts[0] + "".join("<|image_pad|>" * next(sizes) + part for part in parts[1:])
        seen = dict(pixel_values=cut["pixel_values"], image_grid_thw=cut["image_grid_thw"])
    ids = torch.tensor([made.encode(text, add_special_tokens=False).ids])
    if seen:
        seen["mm_token_type_ids"] = (ids == model.config.image_token_id).int()
    model.model.rope_deltas = None
    out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=NEW, output_logits=True, return_dict_in_generate=True, **seen)
    return out.sequences[0, ids.shape[1] :].tolist(), out.logits


def alike(ours, right, logits):
    """Whether continuations are the same, or part where two tokens are as good as equally likely."""
    at = next((at for at, (one, other) in enumerate(zip(ours, right)) if one != other), None)
    if at is None:
        return len(ours) == len(right)
    return (logits[at][0, right[at]] - logits[at][0, ours[at]]).item() < TIE


@torch.no_grad()
def compare(program, seed, folder, asked):
    rng = random.Random(seed)
    made = tokenizer(rng, folder / "tokenizer.json")
    ids = {name: made.token_to_id(name) for name in SPECIAL}
    kind, model = small(rng, ids)
    theirs, names = weights(rng, model, folder, foreign=rng.random() < 0.4)
    processor, template, places = beside(rng, folder, ids)
    if theirs:
        model = kind.from_pretrained(folder, dtype=torch.float32)
    model = model.eval()
    if kind is Qwen3VLMoeForConditionalGeneration:
        model.set_experts_implementation("eager")
    model.generation_config.eos_token_id = [ids["<|im_end|>"], ids["<|endoftext|>"]]
    model.generation_config.pad_token_id = ids["<|endoftext|>"]
    dialogues = [dialogue(rng, folder) for _ in range(asked)]
    lines = "".join(json.dumps(dict(id=at, messages=messages)) + "\n" for at, messages in enumerate(dialogues))
    arguments = ["generate", "--model", str(folder), "--greedy", "--max-new-tokens", str(NEW), "--json"]
    done = subprocess.run([program, *arguments], input=lines, capture_output=True, text=True, timeout=300)
    if done.returncode:
        return 0, f"{names}, {places}: {done.stderr.strip()[-300:]}"
    ours = [json.loads(line)["output_ids"] for line in done.stdout.splitlines()]
    right = [answer(model, made, processor, template, messages) for messages in dialogues]
    same = sum(alike(one, *other) for one, other in zip(ours, right, strict=True))
    wrong = next(((one, other[0], messages) for one, other, messages in zip(ours, right, dialogues) if not alike(one, *other)), None)
    return same, f"{names}, {places}: {wrong}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hypereyes", default="target/release/hypereyes")
    parser.add_argument("--folders", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(1)
    asked, same = 5, 0
    for seed in range(args.seed, args.seed + args.folders):
        with tempfile.TemporaryDirectory() as folder:
            agree, what = compare(args.hypereyes, seed, Path(folder), asked)
        if agree < asked:
            print(json.dumps(dict(seed=seed, same=agree, of=asked, what=what)), flush=True)
        same += agree
    print(json.dumps(dict(folders=args.folders, dialogues=args.folders * asked, same=same)))
