"""The batch of a step that was not finite, kept as `nonfinite/round-01-target-step-00013.parquet`.

One row is one array of one microbatch:

    microbatch   its number in the phase's plan
    name         such as "reference_logps" or "tokens/tokens"
    dtype shape  as NumPy spells them
    values       the bytes, in C order

The file's metadata has under "coevo_jax.nonfinite" a JSON object: phase, round, step (from 1), its
number in the log, beta, metrics, cause, tensor, words, the pairs that did it, and all trajectories.
"""

import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from coevo_jax.files import write_whole

FOLDER = "nonfinite"
KEY = b"coevo_jax.nonfinite"
SCHEMA = pa.schema(
    [
        pa.field("microbatch", pa.int32(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
        pa.field("dtype", pa.string(), nullable=False),
        pa.field("shape", pa.list_(pa.int32()), nullable=False),
        pa.field("values", pa.binary(), nullable=False),
    ]
)


def kept_path(folder: Path, stem: str, step: int) -> Path:
    """Where the batch of a phase's step (from 1) is kept."""
    return folder / FOLDER / f"{stem}-step-{step:05d}.parquet"


def write_kept(path: Path, numbers: Sequence[int], batches: Sequence[Any], about: dict[str, Any]) -> None:
    """Write the arrays of a step's microbatches, and what is told of the step."""
    rows = [
        {
            "microbatch": int(number),
            "name": jax.tree_util.keystr(place, simple=True, separator="/"),
            "dtype": str(np.asarray(array).dtype),
            "shape": list(np.shape(array)),
            "values": np.ascontiguousarray(array).tobytes(),
        }
        for number, batch in zip(numbers, batches, strict=True)
        for place, array in jax.tree_util.tree_leaves_with_path(batch)
    ]
    text = json.dumps(strict(about), allow_nan=False)
    table = pa.Table.from_pylist(rows, schema=SCHEMA.with_metadata({KEY: text.encode()}))
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, buffer.getvalue())


def strict(value: Any) -> Any:
    """The same with "nan", "inf" and "-inf" as text, which JSON has no numbers for."""
    if isinstance(value, dict):
        return {key: strict(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [strict(one) for one in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
