"""Files in the layouts in which benchmarks are published, written by the libraries that their authors use.

In: a folder, and whether a few rows are wanted or as many as are published. Out: a folder for each benchmark in it. Questions, answers
and pictures are of our own making; columns and their types are those of the published files (docs/benchmarks.md says which of these
were seen). What stands beside this file was written by

    python -m venv VENV && VENV/bin/pip install datasets==5.2.0 pyarrow==26.0.1 pillow==13.0.0
    VENV/bin/python crates/dataset/tests/data/make.py crates/dataset/tests/data

and is the same again with these versions. `--published` writes the published numbers of rows: 10,896 with 11,286 pictures to ask about.
"""

import base64
import hashlib
import io
import json
import shutil
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, Features, Image, Value, disable_progress_bars
from datasets import List as ListOf
from PIL import Image as Pillow

disable_progress_bars()
drawn = 0


def picture(kind="JPEG"):
    """A picture like no other: its first pixels count."""
    global drawn
    drawn += 1
    shade = ((drawn * 53) % 200 + 30, (drawn * 97) % 200 + 30, (drawn * 193) % 200 + 30)
    image = Pillow.new("RGB", (32, 24), shade)
    for at in range(16):
        if drawn >> at & 1:
            image.paste((255, 255, 255), ((at % 8) * 4, at // 8 * 12, (at % 8) * 4 + 4, at // 8 * 12 + 12))
    out = io.BytesIO()
    image.save(out, kind, **({"quality": 90} if kind == "JPEG" else {}))
    return out.getvalue()


def cell(kind="JPEG"):
    """A picture as a column of the type `Image` has it."""
    return {"bytes": picture(kind), "path": None}


def folder(out, name):
    path = out / name
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path


def grown(rows, count):
    """As many rows: those of `rows` again and again, each made anew. Each is a function of the number of the row."""
    return [rows[at % len(rows)](at) for at in range(count or len(rows))]


# MMSearch: the features that the card of CaraJ/MMSearch declares.


def mmsearch(out, count):
    def row(area, subfield, query, answer, others, seen):
        def of(at):
            return {
                "sample_id": f"{area}_{subfield}_{at}",
                "query": query,
                "query_image": cell("PNG" if at % 2 else "JPEG") if seen else None,
                "image_search_result": cell() if seen else None,
                "area": area,
                "subfield": subfield,
                "timestamp": "2031-06-12",
                "gt_requery": f"{query} search",
                "gt_answer": answer,
                "alternative_gt_answers": others,
            }

        return of

    seen = [
        row("news", "sports", "Who won the race on this poster?", "Ada Lind", ["A. Lind", "Lind"], True),
        row("knowledge", "architecture", "In which year was this tower finished?", "1931", [], True),
    ]
    unseen = [
        row("news", "finance", "When does the new tariff of Lunaria begin?", "12 June 2031", ["June 12, 2031"], False),
        row("knowledge", "anime", "How many episodes has the third season of Tin Moon?", "24", None, False),
    ]
    if count:
        rows = grown(seen, 171) + grown([lambda at, one=one: one(at + 171) for one in unseen], 129)
        # As they are published, those with a picture and those without are mixed.
        rows.sort(key=lambda row: hashlib.sha256(row["sample_id"].encode()).digest())
    else:
        rows = [row(at) for at, row in enumerate([unseen[0], seen[0], seen[1], unseen[1]])]
    features = Features(
        {
            "sample_id": Value("string"),
            "query": Value("string"),
            "query_image": Image(),
            "image_search_result": Image(),
            "area": Value("string"),
            "subfield": Value("string"),
            "timestamp": Value("string"),
            "gt_requery": Value("string"),
            "gt_answer": Value("string"),
            "alternative_gt_answers": ListOf(Value("string")),
        }
    )
    Dataset.from_list(rows, features=features).to_parquet(str(folder(out, "mmsearch") / "end2end.parquet"))


# MMSearch-R1's files: the schema of its mini_data.pq, whose `path` and `image_urls` are of the type null.

MESSAGES = pa.list_(pa.struct([("content", pa.string()), ("role", pa.string())]))
NULL_PATHS = pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.null())]))
RIGHT = pa.struct([("candidate_answers", pa.string()), ("ground_truth", pa.string()), ("style", pa.string())])


def verl(question, right, candidates, source):
    return {
        "prompt": [{"content": question, "role": "user"}],
        "images": [{"bytes": picture("PNG" if drawn % 2 else "JPEG"), "path": None}],
        "reward_model": {"candidate_answers": json.dumps(candidates), "ground_truth": right, "style": "rule"},
        "data_source": source,
        "image_urls": None,
    }


def write(rows, path, more=()):
    columns = [("prompt", MESSAGES), ("images", NULL_PATHS), ("reward_model", RIGHT), ("data_source", pa.string())]
    schema = pa.schema([*columns, ("image_urls", pa.null()), *more])
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path, compression="snappy")


def fvqa(out, count):
    to = folder(out, "fvqa")
    asked = [
        ("What is the country of origin of this dish?", "Spain", ["Kingdom of Spain", "ESP", "\U0001f1ea\U0001f1f8", "Spain"]),
        ("Who designed this bridge?", "Mira Holt", []),
        ("What is this garden named after?", "the tile kilns", ["tile kilns"]),
    ]
    for part, rows, kinds in [("test", 1800, None), ("train", 4856, ["search_free", "search_required"])]:

        def row(at):
            made = verl(*asked[at % 3], f"mmsearch_r1/fvqa_{part}") | {"data_id": f"fvqa_{part}_{at}"}
            return made | ({"category": kinds[at % 2]} if kinds else {})

        more = [("data_id", pa.string())] + ([("category", pa.string())] if kinds else [])
        write([row(at) for at in range(rows if count else 3)], to / f"fvqa_{part}.parquet", more)


def infoseek(out, count):
    # A number is among InfoSeek's answers, with the range that is right as well.
    asked = [
        ("Who commissioned this building?", "Order of the Lantern", ["Lantern Order", "Order of the Lantern"]),
        ("How many metres high is this hill?", "142", [142, {"wikidata": 142, "range": [127.8, 156.2]}]),
    ]
    rows = [verl(*asked[at % 2], "mmsearch_r1/infoseek_val_split") for at in range(2000 if count else 2)]
    write(rows, folder(out, "infoseek") / "mmsearch_r1_infoseek_sub_2k.parquet")


# WebWatcher's JSON lines: the keys of its eval_data, in their order.

STORE = "http://store.example/team%2Frft%2Fimage%2F"


def lines(rows, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def webwatcher(out, name, asked, count, first):
    to = folder(out, name)
    images = to / "infer/scripts_eval/images" / name
    images.mkdir(parents=True)
    rows = []
    for at in range(count or len(asked)):
        prompt, answers = asked[at % len(asked)]
        file = f"p{at}.jpeg"
        # Half of them as the authors' script writes what it fetched, half by their own name.
        (images / (file if at % 2 else f"team%2Frft%2Fimage%2F{file}")).write_bytes(picture())
        rows.append(
            {
                "prompt": prompt,
                "file_path": STORE + file,
                "task": "hle/Other",
                "tags": "rag,core,en",
                "lang": "en",
                "source": "HLE",
                "answers": answers,
                "question_id": first + at,
            }
        )
    lines(rows, to / f"infer/vl_search_r1/eval_data/{name}.jsonl")


def options(question, *texts):
    choices = "\n".join(f"{letter}. {text}" for letter, text in zip("ABCDE", texts))
    return f"{question}\nYou can choose among these Choices:\n{choices}"


def livevqa(out, count):
    asked = [
        (
            options("Where does this celebration take place?", "Fern Hill Links", "Port Royal", "Old Mill", "Gull Bay", "Ash Park"),
            ["Fern Hill Links", "Fern Hill"],
        ),
        (options("Why was the bridge closed?", "a storm", "repairs", "a race", "a film"), ["repairs"]),
        (options("Who is shown?", "Ola Berg", "Kit Moss", "Ines Vale", "Per Lund", "Yu Tan"), ["Ines Vale", "Vale", "Dr. Vale"]),
    ]
    webwatcher(out, "livevqa", asked, 300 if count else 0, 1)


def simplevqa(out, count):
    asked = [("Who won the prize on this picture?", ["Toma Reyes"]), ("How many euros did this stamp cost in 2005?", ["120000"])]
    webwatcher(out, "simplevqa", asked, 300 if count else 0, 1012)


def hle_vl(out, count):
    to = folder(out, "hle-vl")
    asked = [
        ("White to move. Which two moves mate?", "hle/Other", [["Qa8, then Kc6#"]]),
        ("What is the half-life of the compound shown, in hours?", "hle/Chemistry", [["3.7"]]),
    ]
    rows = []
    for at in range(330 if count else 2):
        prompt, task, answers = asked[at % 2]
        path = f"infer/scripts_eval/images/hle_imgs/file_{at}.jpeg"
        (to / path).parent.mkdir(parents=True, exist_ok=True)
        (to / path).write_bytes(picture())
        row = {"prompt": prompt, "source": "HLE", "lang": "en", "tags": "rag,core,en", "task": task, "file_path": path}
        rows.append(row | {"rationale": "By the tables.", "answers": answers})
    lines(rows, to / "infer/vl_search_r1/eval_data/hle.jsonl")


def browsecomp_vl(out):
    """Only in its published number: the few rows beside this file were written by hand."""
    to = folder(out, "browsecomp-vl")
    for level, count in [(1, 199), (2, 200)]:
        rows = []
        for at in range(1, count + 1):
            path = f"images/level{level}/level{level}_{at}.{'jpeg' if at == 7 else 'jpg'}"
            (to / path).parent.mkdir(parents=True, exist_ok=True)
            (to / path).write_bytes(picture())
            row = {"question": "Which city is it?", "image_path": f"browsecomp-vl/{path}", "answers": ["Lima"], "domain": "Geography"}
            rows.append(row)
        lines(rows, to / f"bc_vl_level{level}.jsonl")


# MMSearch-Plus: the features that the card of Cie1/MMSearch-Plus declares, saved in two parts as its state.json says.


def hidden(text):
    key = hashlib.sha256(b"MMSearch-Plus").digest()
    return base64.b64encode(bytes(byte ^ key[at % 32] for at, byte in enumerate(text.encode()))).decode()


def mmsearch_plus(out, count):
    def row(question, answers, images, arxiv, video, category, difficulty):
        def of(at):
            made = {
                "question": hidden(question),
                "answer": [hidden(answer) for answer in answers],
                "num_images": images,
                "arxiv_id": hidden(arxiv) if arxiv else arxiv,
                "video_url": hidden(video) if video else video,
                "category": category,
                "difficulty": difficulty,
                "subtask": f"{category}: details",
            }
            return made | {f"img_{k}": cell("PNG" if k % 2 else "JPEG") if k <= images else None for k in range(1, 6)}

        return of

    rows = [
        row("In which year was the concert of the first picture given?", ["2014", "in 2014"], 1, None, "", "Performance", "easy"),
        row("Which figure of the paper has this plot?", ["Figure 4"], 5, "2101.00001", None, "Academic Research", "difficult"),
        row("Wie heißt der Ort auf dem zweiten Bild?", ["Zürich", "Zuerich"], 2, None, "https://video.example/v", "Vlog", "easy"),
    ]
    features = {"question": Value("string"), "answer": ListOf(Value("string")), "num_images": Value("int64")}
    features |= {name: Value("string") for name in ["arxiv_id", "video_url", "category", "difficulty", "subtask"]}
    features |= {f"img_{k}": Image() for k in range(1, 6)}
    made = Dataset.from_list(grown(rows, 311 if count else 0), features=Features(features))
    to = folder(out, "mmsearch-plus")
    made.save_to_disk(str(to), num_shards=2)
    if not count:
        # What they say of this machine and moment is nobody's.
        for name in ["state.json", "dataset_info.json"]:
            (to / name).unlink()


# IMEB: the columns that HyperEyes' released code reads; no file of it was seen.


def imeb(out, count):
    tools = "You may search. <tools>[{\"name\": \"image_search\"}]</tools>"
    asked = [
        ("Which of these teams was founded last?", "Harbour FC", "Sports", 2, "[2, 1]"),
        ("Who of them was born in the oldest of the cities?", "Ines Vale", "Entertainment", None, None),
    ]
    rows = []
    for at in range(300 if count else 2):
        question, right, domain, rounds, searches = asked[at % 2]
        rows.append(
            {
                "data_source": "imeb",
                "prompt": [{"role": "system", "content": tools}, {"role": "user", "content": f"<image>\n{question}"}],
                "images": [{"bytes": picture("PNG"), "path": None}],
                "reward_model": {"ground_truth": right, "style": "model"},
                "extra_info": {
                    "index": f"imeb_{at}",
                    "question": f"<image>\n{question}",
                    "type": "only_acc",
                    "tool_call": rounds,
                    "parallel": searches,
                    "domain": domain,
                },
            }
        )
    message = pa.struct([("role", pa.string()), ("content", pa.string())])
    extra = [("index", pa.string()), ("question", pa.string()), ("type", pa.string()), ("tool_call", pa.int64())]
    schema = pa.schema(
        [
            ("data_source", pa.string()),
            ("prompt", pa.list_(message)),
            ("images", pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())]))),
            ("reward_model", pa.struct([("ground_truth", pa.string()), ("style", pa.string())])),
            ("extra_info", pa.struct([*extra, ("parallel", pa.string()), ("domain", pa.string())])),
        ]
    )
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), folder(out, "imeb") / "IMEB_demo.parquet", compression="snappy")


if __name__ == "__main__":
    to, whole = Path(sys.argv[1]), "--published" in sys.argv[2:]
    for make in [mmsearch, fvqa, infoseek, livevqa, simplevqa, hle_vl, mmsearch_plus, imeb]:
        make(to, whole)
    if whole:
        browsecomp_vl(to)
