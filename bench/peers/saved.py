"""Loads a folder that hypereyes saved in transformers and compares next-token log-probs with `hypereyes logprobs`."""

import argparse
import json
import subprocess

import torch
from transformers import AutoModelForImageTextToText

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hypereyes", default="target/release/hypereyes")
    parser.add_argument("--model", required=True)
    args = parser.parse_args()
    model = AutoModelForImageTextToText.from_pretrained(args.model, dtype=torch.float32).eval()
    vocab = model.config.text_config.vocab_size
    worst = 0.0
    for seed in range(4):
        ids = [(at * 7919 + seed * 104729) % (vocab // 2) for at in range(40 + 20 * seed)]
        line = json.dumps(dict(id=seed, input_ids=ids))
        answer = subprocess.run([args.hypereyes, "logprobs", "--model", args.model], input=line, text=True, check=True, stdout=subprocess.PIPE)
        ours = torch.tensor(json.loads(answer.stdout)["next_logprobs"])
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([ids])).logits[0, :-1]
        theirs = torch.log_softmax(logits, -1).gather(1, torch.tensor(ids[1:])[:, None])[:, 0]
        worst = max(worst, (ours - theirs).abs().max().item())
    print(json.dumps(dict(model=args.model, largest_difference=worst)))
