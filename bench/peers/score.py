"""Log-probs of given tokens in transformers, for `hypereyes bench teacher`: the same groups of siblings, as JSON.

`whole` runs every sequence whole, as a trainer that asks transformers for log-probs does; `reused` runs the prompt once and repeats its
cache for the siblings. Both compute logits for the response only."""

import argparse
import json
import statistics
import time

import torch
from transformers import AutoConfig, Qwen3VLForConditionalGeneration

from speed import tokens


@torch.inference_mode()
def whole(model, groups, prompt):
    for prompts, responses in groups:
        ids = torch.cat([prompts.repeat(len(responses), 1), responses], 1)
        kept = responses.shape[1] + 1
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False, logits_to_keep=kept).logits[:, :-1]
        torch.log_softmax(logits, -1).gather(2, responses[:, :, None])


@torch.inference_mode()
def reused(model, groups, prompt):
    for prompts, responses in groups:
        first = model(input_ids=prompts, use_cache=True, logits_to_keep=1)
        cache = first.past_key_values
        cache.batch_repeat_interleave(len(responses))
        rest = model(input_ids=responses, past_key_values=cache, attention_mask=torch.ones(len(responses), prompt + responses.shape[1]),
                     use_cache=True).logits
        logits = torch.cat([first.logits.repeat(len(responses), 1, 1), rest[:, :-1]], 1)
        torch.log_softmax(logits, -1).gather(2, responses[:, :, None])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="assets/teacher")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--groups", type=int, default=16)
    parser.add_argument("--siblings", type=int, default=8)
    parser.add_argument("--prompt", type=int, default=300)
    parser.add_argument("--response", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    config = AutoConfig.from_pretrained(args.model)
    vocab, image = config.text_config.vocab_size, config.image_token_id
    model = Qwen3VLForConditionalGeneration.from_pretrained(args.model, dtype=torch.float32).eval()
    draw = lambda count, seed: torch.where(tokens(count, vocab, seed) == image, 0, tokens(count, vocab, seed))
    groups = [
        (draw(args.prompt, group)[None], torch.stack([draw(args.response, 10_000 + group * args.siblings + at) for at in range(args.siblings)]))
        for group in range(args.groups)
    ]
    total = args.groups * args.siblings * (args.prompt + args.response)
    rows = []
    for name, work in (("whole", whole), ("reused", reused)):
        work(model, groups, args.prompt)
        times = []
        for _ in range(args.repeats):
            began = time.perf_counter()
            work(model, groups, args.prompt)
            times.append(time.perf_counter() - began)
        seconds = statistics.median(times)
        rows.append(dict(peer=f"transformers_{name}", sequence_tokens_per_s=total / seconds, sequences_per_s=args.groups * args.siblings / seconds))
    print(json.dumps(dict(model=args.model, threads=args.threads, torch=torch.__version__, rows=rows)))
