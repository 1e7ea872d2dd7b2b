"""The reward of a group in Python: judge by normalised aliases, TRACE bonus, reward, route. Standard library only.

Our own writing of the rules in docs/trace.md, as a trainer in Python would have them: groups per second on one core.
"""

import argparse
import json
import re
import time
import unicodedata

GOOD, BAD, WRONG, GAMMA = (0.05, 0.20), (-0.10, -0.02), -0.10, 1.5
ARTICLES = {"a", "an", "the"}


def normalise(text):
    text = unicodedata.normalize("NFKD", text).casefold()
    text = "".join(c for c in text if not unicodedata.combining(c))
    text = re.sub(r"(?<=\d),(?=\d{3}\b)", "", text)
    words = re.sub(r"[^\w\s]", " ", text).split()
    return " ".join(word for word in words if word not in ARTICLES)


def ranked(members, keys, low, high):
    distinct = sorted(set(keys[i] for i in members))
    rank = {key: r for r, key in enumerate(distinct)}
    last = len(distinct) - 1
    return {i: high if last == 0 else round(high - (high - low) * rank[keys[i]] / last, 4) for i in members}


def score(group, reference):
    wanted = {normalise(answer) for answer in group["answers"]}
    keys, verdicts = [], []
    for rollout in group["rollouts"]:
        answer = rollout["answer"].strip()
        verdicts.append(None if not answer else normalise(answer) in wanted)
        keys.append((len(rollout["searches"]), sum(rollout["searches"])))
    rounds, searches = reference
    good = [i for i, right in enumerate(verdicts) if right and 0 < keys[i][0] <= rounds and keys[i][1] <= searches]
    bad = [i for i, right in enumerate(verdicts) if right and keys[i][0] > 0 and i not in good]
    bonus = ranked(good, keys, *GOOD) | ranked(bad, keys, *BAD)
    scores = []
    for i, right in enumerate(verdicts):
        if right is None:
            scores.append((-0.5, "distill"))
        elif right:
            scores.append((1.0 + bonus.get(i, 0.0), "reinforce"))
        else:
            outside = keys[i][0] < rounds or keys[i][0] > int(GAMMA * rounds)
            scores.append((WRONG if outside else 0.0, "distill"))
    return scores


def groups(count):
    """The groups of crates/scoring/src/load.rs, draw by draw."""
    state = 0

    def below(bound):
        nonlocal state
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        return (state >> 33) % bound

    def rollout():
        answer = ["Morocco", "the kingdom of Morocco.", "Tunisia", ""][below(4)]
        return dict(answer=answer, searches=[1 + below(4) for _ in range(below(6))])

    return [dict(answers=["Morocco", "Kingdom of Morocco"], rollouts=[rollout() for _ in range(8)]) for _ in range(count)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--groups", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    # The sum that crates/scoring/src/load.rs has for its own rewards of these groups.
    assert abs(sum(reward for group in groups(2048) for reward, _ in score(group, (4, 8))) - 6231.0868) < 1e-6
    load = groups(args.groups)
    assert [round(s, 4) for s, _ in score(dict(answers=["x"], rollouts=[dict(answer="x", searches=s) for s in ([1], [1], [2, 2], [3, 2], [1, 1, 1])]), (2, 4))] == [1.2, 1.2, 1.05, 0.98, 0.9]
    best = []
    for _ in range(args.repeats + 1):
        began = time.perf_counter()
        for group in load:
            score(group, (4, 8))
        best.append(time.perf_counter() - began)
    seconds = sorted(best[1:])[args.repeats // 2]
    print(json.dumps(dict(peer="python_trace", groups_per_s=args.groups / seconds, best=args.groups / min(best))))
