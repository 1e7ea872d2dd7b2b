"""HF generate, a hand-written PyTorch KV-cache loop and a PyTorch training step, as JSON."""

import argparse
import json
import platform
import resource
import statistics
import time

import torch

from decoder import Decoder
from sizes import SIZES, hf_config


def tokens(count, vocab, seed):
    return torch.tensor([(at * 7919 + seed * 104729) % (vocab // 2) for at in range(count)])


def median(work, repeats):
    work()  # warm-up
    return statistics.median(work() for _ in range(repeats))


def now():
    """Seconds, once the device has done what it was told."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()


def timed(work):
    began = now()
    work()
    return now() - began


@torch.inference_mode()
def generate(size, batch, prompt, new, repeats):
    from transformers import Qwen3VLForConditionalGeneration

    torch.manual_seed(0)
    model = Qwen3VLForConditionalGeneration(hf_config(size)).eval()
    ids = tokens(prompt, SIZES[size]["text"]["vocab_size"], 1).repeat(batch, 1)

    def run():
        times = []

        def clock(ids, scores, **_):
            """Called after every token; never stops anything."""
            times.append(now())
            return torch.zeros(len(ids), dtype=torch.bool)

        began = now()
        out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, min_new_tokens=new,
                             do_sample=True, temperature=1.0, top_k=0, top_p=1.0, pad_token_id=0, stopping_criteria=[clock])
        assert out.shape[1] == prompt + new and len(times) == new
        return times[0] - began, times[-1] - times[0]

    if repeats > 1:
        run()  # warm-up
    first, rest = (statistics.median(values) for values in zip(*(run() for _ in range(repeats))))
    return dict(first_token_s=first, decode_tokens_per_s=batch * (new - 1) / rest)


@torch.inference_mode()
def loop(size, batch, prompt, new, repeats):
    torch.manual_seed(0)
    model = Decoder(SIZES[size]["text"]).eval()
    ids = tokens(prompt, SIZES[size]["text"]["vocab_size"], 1)[None]

    def run():
        began = now()
        # As a group: the prompt once, its cache copied to the siblings.
        one = model.caches(1, prompt + new)
        hidden = model(ids[:, :-1], one, 0)
        prefill = now() - began
        caches = [(k.repeat(batch, 1, 1, 1), v.repeat(batch, 1, 1, 1)) for k, v in one]
        last, at = ids[:, -1:].repeat(batch, 1), prompt - 1
        for step in range(new):
            hidden = model(last, caches, at)
            probabilities = torch.softmax(model.logits(hidden[:, -1]), -1)
            last = torch.multinomial(probabilities, 1)
            probabilities.gather(1, last).log()  # a rollout keeps the log-prob of what it sampled
            at += 1
            if step == 0:
                first = now() - began
        return prefill, first, now() - began - first

    run()
    prefill, first, rest = (statistics.median(values) for values in zip(*(run() for _ in range(repeats))))
    return dict(prefill_tokens_per_s=(prompt - 1) / prefill, first_token_s=first, decode_tokens_per_s=batch * (new - 1) / rest)


def train(size, sequences, length, repeats):
    torch.manual_seed(0)
    vocab = SIZES[size]["text"]["vocab_size"]
    model = Decoder(SIZES[size]["text"])
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4)
    ids = torch.stack([tokens(length, vocab, number) for number in range(sequences)])

    def step():
        optimiser.zero_grad()
        logits = model.logits(model(ids)[:, :-1])
        torch.nn.functional.cross_entropy(logits.reshape(-1, vocab), ids[:, 1:].reshape(-1)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()

    seconds = median(lambda: timed(step), repeats)
    with torch.inference_mode():
        score = lambda: torch.log_softmax(model.logits(model(ids)[:, :-1]), -1).gather(2, ids[:, 1:, None])
        forward = median(lambda: timed(score), repeats)
    total = sequences * length
    return dict(logprob_tokens_per_s=total / forward, train_tokens_per_s=total / seconds, train_step_s=seconds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="tiny")
    parser.add_argument("--device", choices=["cpu", "cuda", "cuda-bf16"], default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, action="append")
    parser.add_argument("--prompt", type=int, default=300)
    parser.add_argument("--new", type=int, default=128)
    parser.add_argument("--sequences", type=int, default=8)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--skip-generate", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.set_default_device(args.device.removesuffix("-bf16"))
    if args.device.endswith("-bf16"):
        torch.set_default_dtype(torch.bfloat16)
    rows = []
    for batch in args.batch or [1, 8, 32]:
        row = dict(batch=batch, prompt_tokens=args.prompt, new_tokens=args.new)
        rows.append(row | dict(peer="torch_loop") | loop(args.size, batch, args.prompt, args.new, args.repeats))
        if not args.skip_generate:
            rows.append(row | dict(peer="hf_generate") | generate(args.size, batch, args.prompt, args.new, args.repeats))
    rows.append(dict(peer="torch_train", sequences=args.sequences, length=args.length)
                | train(args.size, args.sequences, args.length, args.repeats))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps(dict(size=args.size, device=args.device, threads=args.threads, torch=torch.__version__, machine=platform.processor(), peak_bytes=peak, rows=rows)))
