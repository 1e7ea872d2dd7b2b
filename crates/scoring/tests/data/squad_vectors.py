"""Makes squad_vectors.jsonl: exact match and token F1 of predictions, best over several answers.

This derives the rules of SQuAD's evaluation script once more, in another language than the code that the vectors hold: lower case,
delete ASCII punctuation, drop the articles a, an, the, split at blanks; and what hypereyes adds for scripts without blanks between words
(docs/judges.md): letters of Han, Hiragana, Katakana and Bopomofo are words, East Asian punctuation is deleted.

Two other implementations were asked for every vector without such a letter, and agreed to the last bit (2026-11-30):
allennlp-models 2.10.1 (allennlp_models/rc/tools/squad.py, float64) and torchmetrics 1.9.0 (torchmetrics/functional/text/squad.py, of which
_normalize_text and _get_tokens were asked, as it computes in float32). Where either side has no words the script of SQuAD 2.0 compares
nothing with nothing; hypereyes does not (docs/judges.md), so that such pairs are no vectors.

    python3 squad_vectors.py > squad_vectors.jsonl
    python3 squad_vectors.py --check allennlp_models/rc/tools/squad.py    # compares with another implementation
"""

import importlib.util
import json
import random
import sys
import unicodedata

ARTICLES = {"a", "an", "the"}
ASCII_PUNCTUATION = set("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")


def is_word_of_its_own(letter):
    name = unicodedata.name(letter, "")
    kinds = ("CJK UNIFIED IDEOGRAPH", "CJK COMPATIBILITY IDEOGRAPH", "HIRAGANA LETTER", "KATAKANA LETTER", "BOPOMOFO LETTER")
    return name.startswith(kinds) or letter in "々〇ー"


def is_east_asian_sign(letter):
    wide = 0xFF01 <= ord(letter) <= 0xFF65 and not unicodedata.category(letter).startswith(("L", "N"))
    return wide or letter in "、。〃〈〉《》「」『』【】〔〕〖〗〘〙〚〛〜〝〞〟〰〽゠・"


def trimmed(piece):
    inside = [at for at, letter in enumerate(piece) if letter.isalnum()]
    return piece[inside[0] : inside[-1] + 1] if inside else ""


def words(text):
    kept = [letter for letter in text.lower() if letter not in ASCII_PUNCTUATION and not is_east_asian_sign(letter)]
    # Articles are maximal runs of letters and digits.
    runs, inside = [], None
    for letter in kept:
        is_inside = letter.isalnum()
        if is_inside is inside:
            runs[-1] += letter
        else:
            runs.append(letter)
        inside = is_inside
    parts = "".join(" " if run in ARTICLES else run for run in runs).split()
    found = []
    for part in parts:
        if not any(map(is_word_of_its_own, part)):
            found.append(part)
            continue
        spaced = "".join(f" {letter} " if is_word_of_its_own(letter) else letter for letter in part)
        found += filter(None, map(trimmed, spaced.split()))
    return found


def f1(prediction, answer):
    said, right = words(prediction), words(answer)
    left = list(right)
    same = 0
    for word in said:
        if word in left:
            left.remove(word)
            same += 1
    if same == 0:
        return 0.0
    precision, recall = same / len(said), same / len(right)
    return (2 * precision * recall) / (precision + recall)


def vector(prediction, answers):
    em = max(float(words(prediction) == words(answer)) for answer in answers)
    return {"prediction": prediction, "answers": answers, "em": em, "f1": max(f1(prediction, answer) for answer in answers)}


WRITTEN = [
    ("Paris", ["Paris"]), ("paris.", ["Paris"]), ("The Paris", ["Paris"]), ("Paris, France", ["Paris"]), ("Rome", ["Paris", "Rome"]),
    ("the cat in the hat", ["Cat in a Hat"]), ("cat hat in", ["cat in hat"]), ("e-mail", ["email"]), ("e mail", ["e-mail"]),
    ("3.5", ["35"]), ("-5", ["5"]), ("1,000", ["1000"]), ("C++", ["c"]), ("U.S.A.", ["USA"]), ("AT&T", ["at t"]),
    ("Köln", ["Koln"]), ("STRASSE", ["Straße"]), ("İstanbul", ["istanbul"]), ("ΟΔΟΣ", ["οδος"]), ("Côte d’Ivoire", ["Cote d'Ivoire"]),
    ("the’s", ["’s"]), ("an\u00a0apple\u2003pie", ["apple pie"]), ("tab\tand\nline", ["tab and line"]), ("x\u001cy", ["x y"]),
    ("to be or not to be", ["to be"]), ("to to be be", ["to be be be"]), ("theatre", ["the atre"]), ("a_b", ["ab"]), ("ana", ["an a na"]),
    ("It was founded in 1994 by Jeff Bezos", ["1994", "in 1994", "founded in 1994"]), ("5 km", ["5km"]), ("½", ["1/2"]), ("x²", ["x2"]),
    ("“quoted”", ["quoted"]), ("a–b", ["a b"]), ("—", ["—"]), ("naïve", ["nai\u0308ve"]), ("Москва", ["москва"]), ("서울 대학교", ["서울"]),
    ("مدينة القاهرة", ["القاهرة"]), ("कोलकाता", ["कोलकाता शहर"]), ("🙂 smile", ["🙂"]), ("the 🙂", ["🙂"]),
    ("北京", ["北京"]), ("北京大学", ["北京"]), ("北京 大学。", ["北京大学"]), ("京北", ["北京"]), ("在北京", ["北京", "上海"]), ("“北京”", ["北京"]),
    ("《红楼梦》", ["红楼梦"]), ("红楼梦，曹雪芹著", ["曹雪芹"]), ("2008年8月8日", ["2008年 8月8日"]), ("iPhone 15 手机", ["iPhone15手机"]),
    ("東京タワー", ["東京タワー", "Tokyo Tower"]), ("ひらがな", ["ひらがた"]), ("佐々木", ["佐佐木"]), ("a北京", ["北京"]), ("the 北京", ["北京"]),
    ("二〇二四", ["二〇二五"]), ("Beijing（北京）", ["北京"]), ("，。", ["北京"]), ("“北京”（Beijing）", ["Beijing", "北京 beijing"]), ("他说“hello”", ["他 说 hello"]),
]


PIECES = ["the", "a", "An", "Eiffel", "tower", "Tower,", "(1889)", "e-mail", "email", "C++", "c", "’s", "5", "5.0", "ß", "SS"]


def drawn(count, pieces):
    """Texts of few words, so that they meet."""
    chosen = random.Random(21)

    def text():
        return chosen.choice(["", " ", " "]).join(chosen.choice(pieces) for _ in range(chosen.randint(1, 6)))

    for _ in range(count):
        yield text(), [text() for _ in range(chosen.randint(1, 3))]


def vectors():
    for prediction, answers in [*WRITTEN, *drawn(400, PIECES), *drawn(200, [*PIECES, "北京", "大学", "京", "，", "タワー"])]:
        if words(prediction) and all(words(answer) for answer in answers):
            yield vector(prediction, answers)


def check(path):
    spec = importlib.util.spec_from_file_location("other", path)
    other = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(other)
    compared = 0
    for known in vectors():
        texts = [known["prediction"], *known["answers"]]
        if any(is_word_of_its_own(letter) or is_east_asian_sign(letter) for text in texts for letter in text):
            continue
        em, best = other.get_metric_score(known["prediction"], known["answers"])
        assert (em, best) == (known["em"], known["f1"]), (known, em, best)
        compared += 1
    print(f"{compared} vectors agree", file=sys.stderr)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--check"]:
        check(sys.argv[2])
    else:
        for known in vectors():
            print(json.dumps(known, ensure_ascii=False))
