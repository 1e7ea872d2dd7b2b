"""The released reward of a group in Python: transcripts, judge by containment, bonus, branch. Standard library only.

Our own writing of sections 2.1 to 2.5 of the specification behind crates/scoring/src/compat, checked against the golden
vectors there; groups per second on one core.
"""

import argparse
import json
import re
import time
from itertools import product
from pathlib import Path

VECTORS = Path(__file__).parents[2] / "crates/scoring/tests/data/reward_vectors.json"
HEADER = re.compile(r"<\|im_start\|>(assistant|user|system)")
GOOD, BAD, WRONG, GAMMA = (0.05, 0.20), (-0.10, -0.02), -0.10, 1.5
# Of the drawn groups' scores, as crates/scoring/src/load.rs tests it too.
SUM = 1630.495


class BadName(Exception):
    pass


def blocks(text, tag):
    """The texts between `<tag>` and the next `</tag>`; twice as fast as a lazy pattern."""
    opening, closing = f"<{tag}>", f"</{tag}>"
    found, start = [], text.find(opening)
    while start >= 0:
        start += len(opening)
        end = text.find(closing, start)
        if end < 0:
            break
        found.append(text[start:end])
        start = text.find(opening, end + len(closing))
    return found


def turns(text):
    """The same of turns, which may lack their end."""
    found, header = [], HEADER.search(text)
    while header:
        end = text.find("<|im_end|>", header.end())
        end = len(text) if end < 0 else end
        found.append(dict(role=header.group(1), content=text[header.end() : end].strip()))
        header = HEADER.search(text, end)
    return found


def searches_of(block):
    try:
        call = json.loads(block)
    except ValueError:
        return "", 0
    if not isinstance(call, dict) or "name" not in call:
        return "", 0
    name, arguments = call["name"], call.get("arguments")
    if name is None or isinstance(name, (bool, int, float)):
        raise BadName(name)
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except ValueError:
            arguments = None
    if not isinstance(arguments, dict):
        return name, 0
    if "text_search" in name:
        key = "input"
    elif "image_search" in name:
        key = "image_id" if "image_id" in arguments else "img_id"
    else:
        return name, 0
    if key not in arguments:
        return name, 0
    return name, sum(1 for piece in str(arguments[key]).split("|") if piece.strip())


def extract(text, whole=True):
    """What a transcript holds; without the actions, which the reward does not look at, unless `whole`."""
    if not text.strip().startswith("<|im_start|>"):
        text = "<|im_start|>assistant\n" + text
    segments = turns(text) or [dict(role="assistant", content=text.strip())]
    read = dict(tool_count=0, search_count=0, max_parallel=0, per_turn=[], final_answer="", segments=segments, actions=[], warned=False)
    actions, per_turn, last = [], [], ""
    try:
        for at, segment in enumerate(segments):
            if segment["role"] != "assistant":
                continue
            last = segment["content"]
            calls = blocks(last, "tool_call")
            if not calls:
                continue
            response, following = aftermath(segments, at) if whole else ("", "")
            in_turn = 0
            for block in calls:
                block = block.strip()
                name, searches = searches_of(block)
                in_turn += searches
                if whole:
                    actions.append(dict(tool_call=block, tool_name=name, tool_response=response, next_assistant=following, search_count=searches, max_parallel=searches))
            per_turn.append(dict(tool_calls=len(calls), searches=in_turn))
    except BadName:
        read["warned"] = True
        return read
    answer = blocks(last, "answer")
    totals = [turn["searches"] for turn in per_turn]
    read.update(
        tool_count=sum(turn["tool_calls"] for turn in per_turn),
        search_count=sum(totals),
        max_parallel=max(totals, default=0),
        per_turn=per_turn,
        final_answer=answer[0].strip() if answer else "",
        actions=actions,
    )
    return read


def aftermath(segments, at):
    response = ""
    for segment in segments[at + 1 :]:
        if segment["role"] == "assistant":
            return response, segment["content"]
        if segment["role"] == "user" and not response:
            body = blocks(segment["content"], "tool_response")
            response = (body[0] if body else segment["content"]).strip()
    return response, ""


def reference(metadata):
    try:
        calls = int(metadata["tool_call"])
    except (KeyError, TypeError, ValueError):
        return -1, -1
    parallel = metadata.get("parallel", [])
    try:
        if isinstance(parallel, str):
            parallel = json.loads(parallel) if parallel.strip() else []
        if parallel and any(isinstance(item, str) for item in parallel):
            return calls, -1
        return calls, sum(int(item) for item in parallel) if parallel else 0
    except (TypeError, ValueError):
        return calls, -1


def ranked(members, keys, low, high):
    distinct = sorted(set(keys[i] for i in members))
    rank = {key: r for r, key in enumerate(distinct)}
    last = len(distinct) - 1
    return {i: high if last == 0 else round(high - (high - low) * rank[keys[i]] / last, 4) for i in members}


def bonuses(calls, searches, rollouts):
    """`rollouts` are (accuracy, calls, searches)."""
    keys = [(t, s) for _, t, s in rollouts]
    right = [i for i, (accuracy, t, _) in enumerate(rollouts) if accuracy > 0 and t != 0]
    good = [i for i in right if keys[i][0] <= calls and keys[i][1] <= searches]
    within = set(good)
    bonus = ranked(good, keys, *GOOD) | ranked([i for i in right if i not in within], keys, *BAD)
    limit = int(GAMMA * calls)
    for i, (accuracy, t, _) in enumerate(rollouts):
        if -0.5 < accuracy <= 0 and (t < calls or t > limit):
            bonus[i] = WRONG
    return [bonus.get(i, 0.0) for i in range(len(rollouts))]


def contains(question, prediction, truth):
    truth = truth.strip().lower()
    return bool(truth) and truth in prediction.lower()


def plain(value):
    return "" if value is None else str(value)


def untagged(answer):
    return answer.replace("<answer>", "").replace("</answer>", "").strip()


def accuracy(sample, judge, whole):
    read = extract(sample["response"], whole)
    metadata, label = sample["metadata"], sample["label"]
    if not read["final_answer"]:
        return -0.5, 0, 0
    if metadata.get("type") != "only_acc":
        return -0.5, read["tool_count"], read["search_count"]
    truth = plain(label.get("ground_truth") if isinstance(label, dict) else label)
    question = plain(metadata.get("question")).replace("<image>", "").strip()
    right = judge(question, untagged(read["final_answer"]), untagged(truth))
    return 1.0 if right else 0.0, read["tool_count"], read["search_count"]


def reward(samples, judge=contains, whole=True):
    judged = [accuracy(sample, judge, whole) for sample in samples]
    if len(judged) == 1:
        return [dict(score=max(0.0, judged[0][0]), opd_branch="skip")]
    given = bonuses(*reference(samples[0]["metadata"]), judged)
    return [
        dict(score=value if value <= -0.5 else value + bonus, opd_branch="reverse_kl" if value <= 0 else "skip")
        for (value, _, _), bonus in zip(judged, given)
    ]


class Draws:
    """As crates/scoring/src/load.rs has them, and what is drawn too."""

    WORDS = ["capital", "of", "the", "river", "Rabat", "mayor", "1", "founded"]
    CALLS = [("text_search", "input"), ("text_search", "input"), ("image_search", "img_id")]
    ENDS = ["<answer>Morocco</answer>", "<answer>It is MOROCCO, I think</answer>", "<answer>Tunisia</answer>", "<answer>Moro"]

    def __init__(self, seed):
        self.state = seed

    def below(self, bound):
        self.state = (self.state * 6364136223846793005 + 1442695040888963407) % 2**64
        return (self.state >> 33) % bound

    def words(self, count):
        return " ".join(self.WORDS[self.below(8)] for _ in range(count))

    def call(self):
        queries = [self.words(2 + self.below(6)) for _ in range(1 + self.below(4))]
        name, key = self.CALLS[self.below(3)]
        return "<tool_call>" + json.dumps(dict(name=name, arguments={key: "|".join(queries)})) + "</tool_call>"

    def turn(self):
        thought = self.words(5 + self.below(30))
        calls = "".join(self.call() for _ in range(1 + self.below(4) // 3))
        found = self.words(self.below(400))
        return f"<reason>{thought}</reason>{calls}<|im_end|>\n<|im_start|>user\n<tool_response>{found}</tool_response><|im_end|>\n<|im_start|>assistant\n"

    def sample(self):
        turns = "".join(self.turn() for _ in range(self.below(6)))
        metadata = dict(question="<image>Which one has capital Rabat?", type="only_acc", tool_call=4, parallel="[2, 2, 2, 2]")
        response = f"{turns}<reason>so</reason>{self.ENDS[self.below(4)]}<|im_end|>"
        return dict(response=response, label=dict(ground_truth="Morocco"), metadata=metadata)


def check(vectors):
    """Every golden case of the three families; how many there were."""
    close = lambda got, want: len(got) == len(want) and all(abs(g - w) < 1e-9 for g, w in zip(got, want))
    cases = lambda family: vectors[family] + [entry["case"] for entry in vectors["golden"] if entry["family"] == family]
    for case in cases("extract_completion"):
        assert extract(case["completion"] or "") == case["expected"], case["id"]
    for case in cases("group_bonus"):
        given = case["input"]
        rollouts = [(r["acc_reward"], r["count"], r["total"]) for r in given["rollouts"]]
        assert close(bonuses(given["sft_tc"], given["sft_total_search"], rollouts), case["expected"]), case["id"]
    for case in cases("reward_func"):
        got = reward(case["samples"])
        assert close([s["score"] for s in got], [s["score"] for s in case["expected"]]), case["id"]
        assert [s["opd_branch"] for s in got] == [s["opd_branch"] for s in case["expected"]], case["id"]
    return sum(len(cases(family)) for family in ("extract_completion", "group_bonus", "reward_func"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=9)
    args = parser.parse_args()
    vectors = json.loads(VECTORS.read_text())
    checked = check(vectors)
    # As crates/scoring/benches/scoring.rs has them.
    short = [case["samples"] for case in vectors["reward_func"] if len(case["samples"]) == 8]
    page = "<tool_response>" + "A page that was found. " * 100
    long = [[{**sample, "response": sample["response"].replace("<tool_response>", page)} for sample in group] for group in short]
    draws = Draws(0)
    drawn = [[draws.sample() for _ in range(8)] for _ in range(512)]
    total = sum(score["score"] for group in drawn for score in reward(group))
    assert abs(total - SUM) < 1e-6, total
    # As the released code does it, all of a transcript; and no more of it than the reward asks for, as ours.
    for (name, load), (peer, whole) in product(
        (("transcripts", short), ("long transcripts", long), ("32 drawn", drawn[:32]), ("512 drawn", drawn)), (("python_released", True), ("python_released_lean", False))
    ):
        times, rounds = [], max(1, args.rounds * len(short) // len(load))
        for _ in range(args.repeats + 1):
            began = time.perf_counter()
            for _ in range(rounds):
                for group in load:
                    reward(group, whole=whole)
            times.append(time.perf_counter() - began)
        seconds = sorted(times[1:])[args.repeats // 2]
        groups = rounds * len(load)
        print(json.dumps(dict(peer=peer, case=name, checked=checked, groups_per_s=groups / seconds, best=groups / min(times))))
