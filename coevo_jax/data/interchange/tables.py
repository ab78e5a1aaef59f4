"""Rows of sets that `datasets` opens: folders, Parquet and Arrow files, and the Hugging Face hub.

A hub set is named `hub:owner/name`, with `:config` and `@split` behind it where the set has several. What
lies on disk is read without the network.
"""

import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import datasets.exceptions
import pyarrow as pa
import pyarrow.parquet as pq

from coevo_jax.config import ConfigError
from coevo_jax.data.interchange.json_rows import Row
from coevo_jax.data.interchange.splits import choose_split
from coevo_jax.files import write_whole

HUB = "hub:"
EXTRA = "extra"  # column of all keys beyond a row's own, as JSON text
CONTENT_COLUMNS = ("id", "item_id", "conversations", "messages", "prompt", "chosen", "rejected", "reward")
ROW_GROUP = 1000
UNUSABLE = (
    OSError,
    ValueError,
    TypeError,
    RuntimeError,
    pa.ArrowException,
    datasets.exceptions.DatasetsError,
)


def is_hub_name(source: str) -> bool:
    return source.startswith(HUB)


@dataclass(frozen=True, kw_only=True)
class Table:
    """One split of a set: its rows, and their number where it is known beforehand."""

    rows: Iterable[dict[str, Any]]
    total: int | None


def open_table(source: str, split: str | None) -> Table:
    """Open one split of a hub set, a saved data set's folder, a folder of data files, or a Parquet file.

    Parquet files and folders of data files are streamed. Raises ConfigError when there is no such set or
    split, the hub cannot be reached, or files are broken.
    """
    path = Path(source)
    if not is_hub_name(source) and path.is_file():
        return _parquet(path)
    name, config = source, None
    if is_hub_name(source):
        name, at, named_split = source.removeprefix(HUB).partition("@")
        split = named_split if at else split
        name, _, config = name.partition(":")
        if not name:
            raise ConfigError(f"{source}: expected hub:owner/name, with :config and @split where needed")
    try:
        found = _open(source, name, config or None)
    except UNUSABLE as error:
        raise ConfigError(_why(source, error)) from None
    if isinstance(found, Mapping):
        found = found[choose_split(source, split, list(found))]
    return Table(rows=found, total=len(found) if isinstance(found, datasets.Dataset) else None)


def table_rows(source: str, table: Table) -> Iterator[Row]:
    """Yield every row, without the keys that Arrow added as null; the column of other keys is unpacked."""
    rows = enumerate(table.rows)
    while True:
        try:
            index, row = next(rows)
        except StopIteration:
            return
        except UNUSABLE as error:
            raise ConfigError(_why(source, error)) from None
        where = f"row {index}"
        try:
            value = _unpacked(row)
        except ValueError as error:
            yield Row(where=where, index=index, done=index + 1, problem=f"{EXTRA}: {error}")
        else:
            yield Row(where=where, index=index, done=index + 1, value=value)


def _parquet(path: Path) -> Table:
    try:
        file = pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise ConfigError(f"{path}: cannot be read as a Parquet file: {error}") from None
    batches = file.iter_batches(batch_size=ROW_GROUP)
    return Table(rows=(row for batch in batches for row in batch.to_pylist()), total=file.metadata.num_rows)


def write_table(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write rows as a Parquet file that `datasets` and pandas open."""
    with tempfile.TemporaryDirectory() as folder:
        part = Path(folder) / "rows.parquet"
        writer: pq.ParquetWriter | None = None
        try:
            for group in _groups(rows):
                columns = writer.schema if writer else _schema(group[0])
                if writer is None:
                    writer = pq.ParquetWriter(part, columns, compression="zstd")
                writer.write_table(pa.Table.from_pylist(group, schema=columns))
        finally:
            if writer is not None:
                writer.close()
        if writer is None:
            raise ConfigError(f"{path}: no rows to write")
        write_whole(path, part.read_bytes())


def _groups(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    group: list[dict[str, Any]] = []
    for row in rows:
        group.append(_packed(row))
        if len(group) == ROW_GROUP:
            yield group
            group = []
    if group:
        yield group


def _schema(row: dict[str, Any]) -> pa.Schema:
    """Columns of a row's layout, with the same types whatever the rows hold."""
    names = {"role", "content"} if "messages" in row else {"from", "value"}
    message = pa.struct([*((name, pa.string()) for name in sorted(names)), ("loss", pa.bool_())])
    types = {"reward": pa.float64(), EXTRA: pa.string(), "id": pa.string(), "item_id": pa.string()}
    columns = [name for name in CONTENT_COLUMNS if name in row or name == "reward"]
    return pa.schema([(name, types.get(name, pa.list_(message))) for name in (*columns, EXTRA)])


def _packed(row: dict[str, Any]) -> dict[str, Any]:
    own = {key: value for key, value in row.items() if key in CONTENT_COLUMNS}
    extra = {key: value for key, value in row.items() if key not in own}
    return own | {EXTRA: json.dumps(extra, ensure_ascii=False) if extra else None}


def _unpacked(row: dict[str, Any]) -> dict[str, Any]:
    value = {key: _without_nulls(entry) for key, entry in row.items() if entry is not None}
    if isinstance(value.get(EXTRA), str):
        extra = json.loads(value.pop(EXTRA))
        if not isinstance(extra, dict):
            raise ValueError(f"found {type(extra).__name__}, expected an object as JSON text")
        value = extra | value
    return value


def _without_nulls(entry: Any) -> Any:
    """Messages without the keys that only others of the set have."""
    if isinstance(entry, list):
        return [
            {key: value for key, value in item.items() if value is not None}
            if isinstance(item, dict)
            else item
            for item in entry
        ]
    return entry


def _open(source: str, name: str, config: str | None) -> Any:
    if is_hub_name(source):
        return datasets.load_dataset(name, config)
    path = Path(name)
    if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
        return datasets.load_from_disk(name)
    return datasets.load_dataset(name, streaming=True)


def _why(source: str, error: Exception) -> str:
    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and len(chain) < 10:
        chain.append(cause)
    names = {type(link).__name__ for link in chain}
    first = str(error).strip().split("\n")[0][:300]
    offline: Sequence[str] = (
        "ConnectionError",
        "OfflineModeIsEnabled",
        "ConnectError",
        "LocalEntryNotFoundError",
    )
    if is_hub_name(source) and names & set(offline):
        return (
            f"{source}: the Hugging Face hub cannot be reached and the set is not in the local cache; "
            f"download it where there is a network and name its folder instead ({first})"
        )
    return f"{source}: cannot be opened by `datasets`: {type(error).__name__}: {first}"
