"""Makes the files beside it: columns of every type that is read, written by pyarrow.

    python3 -m venv /tmp/venv && /tmp/venv/bin/pip install pyarrow==26.0.1
    /tmp/venv/bin/python make.py
"""

import datetime
import decimal

import pyarrow as pa
import pyarrow.feather
import pyarrow.ipc
import pyarrow.parquet as pq

# Columns of every type, in parquet and in an Arrow file; the answers to compare with are beside.
types = pa.table(
    {
        "bool": pa.array([True, None]),
        "i8": pa.array([-1, None], pa.int8()),
        "u64": pa.array([2**64 - 1, 7], pa.uint64()),
        "f16": pa.array([0.5, None], pa.float16()),
        "f32": pa.array([0.25, None], pa.float32()),
        "f64": pa.array([0.1, float("nan")], pa.float64()),
        "text": pa.array(["é", ""], pa.large_string()),
        "bytes": pa.array([b"\x00\xff", None], pa.large_binary()),
        "fixed": pa.array([b"abc", None], pa.binary(3)),
        "word": pa.array(["x", "x"]).dictionary_encode(),
        "date": pa.array([datetime.date(2026, 11, 30), None]),
        "time": pa.array([datetime.time(1, 2, 3, 4000), None], pa.time64("us")),
        "naive": pa.array([datetime.datetime(2026, 11, 30, 1, 2, 3), None], pa.timestamp("ms")),
        "utc": pa.array([datetime.datetime(2026, 11, 30, 1, 2, 3, 500, tzinfo=datetime.timezone.utc), None], pa.timestamp("us", "UTC")),
        "decimal": pa.array([decimal.Decimal("-12.50"), None], pa.decimal128(9, 2)),
        "null": pa.nulls(2),
        "list": pa.array([[1, None], []], pa.list_(pa.int32())),
        "lists": pa.array([[[1], []], None], pa.large_list(pa.list_(pa.int64()))),
        "pair": pa.array([[1.0, 2.0], None], pa.list_(pa.float64(), 2)),
        "struct": pa.array([{"a": {"b": [{"c": 1}]}}, None]),
        "map": pa.array([[("k", 1), ("l", 2)], None], pa.map_(pa.string(), pa.int64())),
        "numbers": pa.array([[(1, "one")], None], pa.map_(pa.int64(), pa.string())),
    }
)
pq.write_table(types, "types.parquet", compression="zstd")
with pa.ipc.new_file("types.arrow", types.schema) as out:
    for batch in types.to_batches(max_chunksize=1):
        out.write(batch)
with pa.ipc.new_stream("types.stream.arrow", types.schema) as out:
    out.write_table(types)
pa.feather.write_feather(types.select(["text"]), "packed.arrow", compression="lz4")
