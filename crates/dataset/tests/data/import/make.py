"""Makes the files beside it: rows to train on in the layouts in which they are published, written by pyarrow, pandas and datasets.

Everything in them is of our own making. Run it to make them again, in this folder:

    python3 -m venv /tmp/venv && /tmp/venv/bin/pip install pyarrow==26.0.1 pandas==3.1.1 pillow==13.0.0 datasets==5.2.0
    /tmp/venv/bin/python make.py
"""

import io
import json
import os
import shutil

import datasets
import pandas
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def encoded(name, colour, kind, turned=False):
    image = Image.new("RGB", (24, 16), colour)
    image.putpixel((0, 0), (255, 255, 255))
    out = io.BytesIO()
    exif = Image.Exif()
    if turned:
        exif[0x0112] = 6
    image.save(out, kind, exif=exif)
    with open(name, "wb") as file:
        file.write(out.getvalue())
    return out.getvalue()


RED = encoded("red.png", (200, 10, 10), "PNG")
BLUE = encoded("blue.jpg", (10, 10, 200), "JPEG")
TURNED = encoded("turned.jpg", (10, 200, 10), "JPEG", turned=True)

MESSAGE = pa.struct([("content", pa.string()), ("role", pa.string())])
PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def user(text):
    return [{"role": "user", "content": text}]


def picture(data, path=None):
    return {"bytes": data, "path": path}


# verl: as its examples write rows, with tools and splits in extra_info.
verl = [
    {
        "data_source": "geo",
        "prompt": [{"role": "system", "content": "Use tools."}, *user("<image>\n<image>Which is red?")],
        "images": [picture(RED), picture(BLUE, "blue.jpg")],
        "ability": "vqa",
        "reward_model": {"style": "rule", "ground_truth": "the first"},
        "extra_info": {
            "split": "train",
            "index": 0,
            "answer": "Because it is. #### the first",
            "question": "Which is red?",
            "need_tools_kwargs": True,
            "tools_kwargs": {"search": {"create_kwargs": {"ground_truth": "the first"}}},
        },
        "agent_name": "tool_agent",
    },
    {
        "data_source": "geo",
        "prompt": user("What is 2 + 2?"),
        "images": [],
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": "4"},
        "extra_info": {"split": "train", "index": 1, "answer": None, "question": None, "need_tools_kwargs": False, "tools_kwargs": None},
        "agent_name": None,
    },
    {  # More pictures than marks.
        "data_source": "geo",
        "prompt": user("<image>Which?"),
        "images": [picture(RED), picture(BLUE)],
        "ability": "vqa",
        "reward_model": {"style": "rule", "ground_truth": "x"},
        "extra_info": {"split": "train", "index": 2, "answer": None, "question": None, "need_tools_kwargs": False, "tools_kwargs": None},
        "agent_name": None,
    },
    {  # More marks than pictures.
        "data_source": "geo",
        "prompt": user("<image>Is <image> green?"),
        "images": [picture(TURNED)],
        "ability": "vqa",
        "reward_model": {"style": "rule", "ground_truth": "yes"},
        "extra_info": {"split": "train", "index": 3, "answer": None, "question": None, "need_tools_kwargs": False, "tools_kwargs": None},
        "agent_name": None,
    },
]
pq.write_table(pa.Table.from_pylist(verl), "verl.parquet", compression="snappy")
pandas.DataFrame(verl[:2]).to_parquet("verl-pandas.parquet", compression="zstd")

# HyperEyes: by the columns that the released code reads.
hypereyes = [
    {
        "prompt": [{"role": "system", "content": "Tools: image_search, text_search."}, *user(f"<image>Question {at}?")],
        "images": [picture(RED if at == 0 else TURNED)],
        "reward_model": {"ground_truth": f"answer {at}"},
        "extra_info": {"question": f"<image>Question {at}?", "type": "only_acc", "tool_call": at + 1, "parallel": parallel, "index": f"v-{at}"},
    }
    for at, parallel in enumerate(["[2]", "[2, 1]", "[1, 1, 0]", "[]"])
]
hypereyes.append({**hypereyes[0], "extra_info": {**hypereyes[0]["extra_info"], "index": "v-again"}})
pq.write_table(pa.Table.from_pylist(hypereyes), "hypereyes.parquet", row_group_size=2)

# MMSearch-R1: with the types that its published file has, down to paths that are numbers and all null.
mmsearch = pa.table(
    {
        "prompt": pa.array([user("<image>\nWhose flag?"), user("<image>\nWhose ship?")], pa.list_(MESSAGE)),
        "images": pa.array(
            [[{"bytes": RED, "path": None}], [{"bytes": BLUE, "path": None}]],
            pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.int32())])),
        ),
        "reward_model": pa.array(
            [
                {"candidate_answers": json.dumps(["Peru", "Republic of Peru"]), "ground_truth": "Peru", "style": "rule"},
                {"candidate_answers": "[]", "ground_truth": "Chile", "style": "rule"},
            ],
            pa.struct([("candidate_answers", pa.string()), ("ground_truth", pa.string()), ("style", pa.string())]),
        ),
        "data_source": pa.array(["mmsearch_r1/fvqa_auto", "mmsearch_r1/fvqa_manual"]),
        "image_urls": pa.array([None, "https://example.org/ship.jpg"]),
        "data_id": pa.array(["fvqa_1", "fvqa_2"]),
    }
)
pq.write_table(mmsearch, "mmsearch-r1.parquet", compression="snappy")

# slime and Relax: texts or messages, a label, metadata; pictures by path, data URI or bytes.
slime = [
    {"prompt": "<image> Which colour?", "label": "red", "images": ["red.png"], "metadata": {"rm_type": "f1", "category": "colour"}},
    {"prompt": "Which number is larger: 3 or 5?", "label": "5", "images": [], "metadata": {"rm_type": "math", "category": "number"}},
    {"prompt": "<image> And this?", "label": "blue", "images": ["../../../../Cargo.toml"], "metadata": {"rm_type": "f1", "category": "colour"}},
]
with open("slime.jsonl", "w") as out:
    for row in slime:
        out.write(json.dumps(row) + "\n")
parts = [{"type": "image", "text": None}, {"type": "text", "text": "Which colour is it?"}]
relax = [
    {"messages": [{"role": "user", "content": parts}], "label": "blue", "images": [BLUE], "metadata": {"tool_call": 2, "parallel": [1, 2]}},
]
pq.write_table(pa.Table.from_pylist(relax), "relax.parquet")

# Our own columns, with the pictures within.
own = [
    {
        "id": "own-1",
        "kind": "visual_select",
        "question": "Which one?",
        "answers": ["Peru", "Perú"],
        "pictures": [picture(RED)],
        "layer": 7,
        "shown": [{"entity": "pe", "area": [0.0, 0.0, 0.5, 1.0]}],
        "reference": {"rounds": 1, "searches": 2},
        "metadata": {"source": "own", "page": None},
    },
    {
        "id": "own-2",
        "kind": "textual_constraints",
        "question": "Who?",
        "answers": ["Ada"],
        "pictures": [],
        "layer": None,
        "shown": [],
        "reference": None,
        "metadata": {"source": None, "page": 12},
    },
]
pq.write_table(pa.Table.from_pylist(own), "tasks.parquet")

# Plain columns through datasets, as it writes parquet, and Arrow where it saves to a disk.
features = datasets.Features(
    {"question": datasets.Value("string"), "answer": datasets.Value("string"), "image": datasets.Image(), "category": datasets.ClassLabel(names=["a", "b"])}
)
plain = {"question": ["Which colour?", "Which one?"], "answer": ["red", "blue"], "image": [picture(RED), picture(BLUE)], "category": ["a", "b"]}
plain = datasets.Dataset.from_dict(plain, features=features)
plain.to_parquet("plain.parquet")
plain.save_to_disk("saved")
shutil.copy("saved/data-00000-of-00001.arrow", "plain.arrow")
shutil.rmtree("saved")

print({name: os.path.getsize(name) for name in sorted(os.listdir("."))})
