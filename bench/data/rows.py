"""Writes a parquet file of about so many GB in verl's columns, with pictures that cannot be compressed, a row group at a time.

    python3 -m venv /tmp/venv && /tmp/venv/bin/pip install pyarrow pillow
    for size in 1 4 8; do
        /tmp/venv/bin/python bench/data/rows.py $size /tmp/rows.parquet
        /usr/bin/time -f "%M KiB at most, %e s" hypereyes data import /tmp/rows.parquet --out /tmp/rows.set
        rm -r /tmp/rows.set /tmp/rows.parquet
    done

The memory of an import must not depend on the size. Pictures come again with other comments, as other files.
"""

import io
import os
import sys

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

SIDE, DISTINCT, GROUP = 640, 16, 100


def noise():
    out = io.BytesIO()
    Image.frombytes("RGB", (SIDE, SIDE), os.urandom(SIDE * SIDE * 3)).save(out, "JPEG", quality=90)
    return out.getvalue()


def commented(jpeg, number):
    return jpeg[:2] + b"\xff\xfe\x00\x0a" + number.to_bytes(8, "big") + jpeg[2:]


def main(gigabytes, path):
    pictures = [noise() for _ in range(DISTINCT)]
    schema = pa.schema(
        [
            ("data_source", pa.string()),
            ("prompt", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
            ("images", pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())]))),
            ("reward_model", pa.struct([("style", pa.string()), ("ground_truth", pa.string())])),
            ("extra_info", pa.struct([("split", pa.string()), ("index", pa.int64())])),
        ]
    )
    row, written = 0, 0
    with pq.ParquetWriter(path, schema) as out:
        while written < gigabytes * 1e9:
            rows = []
            for row in range(row, row + GROUP):
                data = commented(pictures[row % DISTINCT], row)
                written += len(data)
                rows.append(
                    {
                        "data_source": "noise",
                        "prompt": [{"role": "user", "content": f"<image>Which one is number {row}?"}],
                        "images": [{"bytes": data, "path": None}],
                        "reward_model": {"style": "rule", "ground_truth": f"answer {row}"},
                        "extra_info": {"split": "train", "index": row},
                    }
                )
            row += 1
            out.write_table(pa.Table.from_pylist(rows, schema))
    print(f"{path}: {row} rows, {os.path.getsize(path) / 1e9:.2f} GB")


if __name__ == "__main__":
    main(float(sys.argv[1]), sys.argv[2])
