"""What hypereyes saves, as transformers reads it.

With `--model DIR`: the largest difference of next-token log-probs between `hypereyes logprobs` and transformers on one folder.
Without: starts of five kinds (one file, shards, tied, experts, one that is trained with adapters) are written as published ones
are, trained for a few steps by `hypereyes sft`, and what is saved is read by both: log-probs of texts and of pictures. Exit code 1
when they differ, when training changed nothing, or when a key, a file or an old shard is not where it should be.
"""

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoModelForImageTextToText, Qwen3VLConfig, Qwen3VLMoeConfig
from transformers.utils import logging

import variants

KINDS = {
    "single": dict(),
    "sharded": dict(shard="200KB"),
    "tied": dict(tied=True, older=True),
    "experts": dict(experts=True, turned=True, older=True, shard="200KB"),
    "lora": dict(shard="200KB", more=["--set", "sft_optim.lora.rank=4"]),
}
# The shipped policy's tokenizer goes with every start: demonstrations are made with it.
BESIDE = ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "generation_config.json", "preprocessor_config.json"]


def load(folder):
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    if "moe" in model.config.model_type:
        model.set_experts_implementation("eager")
    return model


def texts(program, folder):
    """Largest difference on four texts."""
    model = load(folder)
    vocab = model.config.text_config.vocab_size
    worst = 0.0
    for seed in range(4):
        ids = [(at * 7919 + seed * 104729) % (vocab // 2) for at in range(40 + 20 * seed)]
        ours = json.loads(variants.run(program, ["logprobs", "--model", str(folder)], json.dumps(dict(id=seed, input_ids=ids))))["next_logprobs"]
        theirs = variants.logprobs(model, dict(input_ids=torch.tensor(ids)))
        worst = max(worst, (torch.tensor(ours) - theirs).abs().max().item())
    return worst


def start(folder, policy, tied=False, experts=False, older=False, turned=False, shard="5GB"):
    """A small random model with the tokenizer of the shipped policy, and with more beside it than hypereyes knows."""
    own = json.loads((policy / "config.json").read_text())
    rope = dict(rope_type="default", mrope_interleaved=True, rope_theta=1e4, mrope_section=[4, 2, 2])
    text = dict(vocab_size=own["text_config"]["vocab_size"], hidden_size=48, head_dim=16, num_attention_heads=4, num_key_value_heads=2)
    text |= dict(num_hidden_layers=2, intermediate_size=64, rope_parameters=rope, max_position_embeddings=262144, eos_token_id=258, bos_token_id=256)
    if experts:
        text |= dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=20)
    vision = dict(depth=2, hidden_size=32, num_heads=2, intermediate_size=48, out_hidden_size=48, deepstack_visual_indexes=[0], num_position_embeddings=144)
    tokens = {name: own[name] for name in ("image_token_id", "vision_start_token_id", "vision_end_token_id")}
    kind = Qwen3VLMoeConfig if experts else Qwen3VLConfig
    config = kind(text_config=text, vision_config=vision, tie_word_embeddings=tied, video_token_id=tokens["image_token_id"] + 1, **tokens)
    variants.write(variants.fresh(config, 1), folder, older=older, turned=turned, dtype=torch.float32, shard=shard)
    for name in BESIDE:
        shutil.copy(policy / name, folder / name)
    (folder / "notes.txt").write_text("kept")
    config = json.loads((folder / "config.json").read_text()) | dict(my_note=["kept"])
    (folder / "config.json").write_text(json.dumps(config))


def lost(old, new, at=""):
    for key, value in old.items():
        if key in ("dtype", "torch_dtype", "transformers_version"):
            continue
        if isinstance(value, dict):
            yield from lost(value, new.get(key, {}), f"{at}{key}.")
        elif new.get(key) != value:
            yield at + key


def asked(program, folder, cases):
    return [torch.tensor(one["next_logprobs"]) for one in json.loads(variants.run(program, ["logprobs", "--model", str(folder), "--cases", str(cases), "--json"]))]


@torch.no_grad()
def saved(program, name, data, policy, work):
    """What is wrong with a trained folder of one kind, and how far the two readers are apart."""
    options = dict(KINDS[name])
    more = options.pop("more", [])
    old, out = work / f"{name}-start", work / f"{name}-out"
    start(old, policy, **options)
    # Into a folder that holds an older model of several files.
    shutil.copytree(old, out)
    variants.run(program, ["sft", "--data", str(data), "--model", str(old), "--out", str(out), "--set", "sft.steps=3", "--set", "sft.lr=0.01", *more])
    model, rng = load(out), random.Random(7)
    given = [variants.case(model.config, rng, pictures) for pictures in ([], [(2, 3)], [(3, 2), (2, 2), (1, 5)])]
    cases = work / f"{name}.safetensors"
    save_file({f"case{at}.{key}": tensor for at, one in enumerate(given) for key, tensor in one.items()}, cases)
    before, ours = asked(program, old, cases), asked(program, out, cases)
    far = max((one - variants.logprobs(model, case)).abs().max().item() for one, case in zip(ours, given, strict=True))
    moved = max((one - two).abs().max().item() for one, two in zip(before, ours, strict=True))
    names = {path.name for path in out.iterdir()}
    beside = {path.name for path in old.iterdir() if "safetensors" not in path.name}
    config = [json.loads((folder / "config.json").read_text()) for folder in (old, out)]
    wrong = [f"lost key {key}" for key in lost(*config)] + [f"lost file {file}" for file in sorted(beside - names)]
    wrong += [f"left over {file}" for file in sorted(names - beside - {"model.safetensors"})]
    wrong += ["training changed nothing"] * (moved < 1e-3) + ["log-probs differ"] * (not far < variants.TOLERANCE)
    return dict(kind=name, largest_difference=far, changed=moved, files=len(names), wrong=wrong)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hypereyes", default="target/release/hypereyes")
    parser.add_argument("--model")
    parser.add_argument("--policy", default="assets/policy", type=Path)
    args = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(1)
    if args.model:
        with torch.inference_mode():
            print(json.dumps(dict(model=args.model, largest_difference=texts(args.hypereyes, args.model))))
        sys.exit()
    with tempfile.TemporaryDirectory() as work:
        data = Path(work) / "data"
        variants.run(args.hypereyes, ["synth", "--out", str(data), "--set", "synth.tasks=8"])
        told = [saved(args.hypereyes, name, data, args.policy, Path(work)) for name in KINDS]
    for one in told:
        print(json.dumps(one))
    sys.exit(any(one["wrong"] for one in told))
