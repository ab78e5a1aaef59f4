"""Rows of sets that `datasets` finds: folders, Parquet and Arrow files, and the Hugging Face hub.

A hub set is named `hub:owner/name`, with `:config` and `@split` behind it where the set has several. What
lies on disk is read without the network.
"""

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import datasets
import datasets.exceptions
import pyarrow as pa
import pyarrow.parquet as pq

from coevo_jax.config.strict import ConfigError
from coevo_jax.data.interchange.arrow_rows import EXTRA, arrow_rows
from coevo_jax.data.interchange.json_rows import JsonRow, is_packed, json_rows
from coevo_jax.data.interchange.splits import choose_split
from coevo_jax.files import write_whole

HUB = "hub:"
SAVED = ("state.json", "dataset_dict.json")  # files of a folder that `datasets` saved
DESCRIPTIONS = (*SAVED, "dataset_info.json", "dataset_infos.json", "config.json")
ENDINGS = (".json", ".jsonl", ".json.gz", ".jsonl.gz", ".parquet")
MESSAGE_FIELDS = ("from", "value", "role", "content", "loss")
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
    """Whether the name of a set is one on the Hugging Face hub."""
    return source.startswith(HUB)


Rows = Iterator[tuple[str, JsonRow]]  # with the file or set they come from


@dataclass(frozen=True, kw_only=True)
class RowTable:
    """One split of a set: its rows, and their number where it is known beforehand."""

    rows: Rows
    total: int | None


def open_table(source: str, split: str | None) -> RowTable:
    """Open one split of a hub set, a saved data set's folder, a folder of data files, or a Parquet file.

    `datasets` says which files make the split; JSON and Parquet files are read here, so that a value is
    what its file says wherever the file lies.

    Raises:
      ConfigError: there is no such set or split, the hub cannot be reached, or files are broken.
    """
    path = Path(source)
    if not is_hub_name(source) and path.is_file():
        return _parquet(source, [path])
    name, config = source, None
    if is_hub_name(source):
        name, at, named_split = source.removeprefix(HUB).partition("@")
        split = named_split if at else split
        name, _, config = name.partition(":")
        if not name:
            raise ConfigError(f"{source}: expected hub:owner/name, with :config and @split where needed")
    try:
        if not is_hub_name(source) and any((path / saved).is_file() for saved in SAVED):
            return _prepared(source, datasets.load_from_disk(name), split)
        builder: Any = datasets.load_dataset_builder(name, config or None)
        kind = builder.__module__.rpartition(".")[2]
        if builder.config.data_files is None or kind == "arrow":
            return _prepared(source, datasets.load_dataset(name, config or None), split)
        read = READERS.get(kind)
        if read is None:
            raise ConfigError(
                f"{source}: found {kind} files, expected JSON or Parquet: their values have types"
            )
        found = {str(key): list(names) for key, names in builder.config.data_files.items()}
        if not is_hub_name(source):
            _refuse_left_out(path, found)
        files = datasets.DownloadManager().download(found[choose_split(source, split, list(found))])
    except UNUSABLE as error:
        raise ConfigError(_why(source, error)) from None
    return read(source, [_as_named(path, Path(file)) for file in files])


def _as_named(folder: Path, file: Path) -> Path:
    """A file of a folder by the name that the user gave the folder; any other file as it is."""
    whole = folder.absolute()
    return folder / file.relative_to(whole) if file.is_relative_to(whole) else file


def _refuse_left_out(folder: Path, found: Mapping[str, Sequence[str]]) -> None:
    """Refuse files that no split takes: names such as train.json make `datasets` leave out all others."""
    if (folder / "README.md").is_file():
        return  # it may say which files make the set
    taken = {Path(name).resolve() for names in found.values() for name in names}
    ours = (path for path in sorted(folder.rglob("*")) if path.name.endswith(ENDINGS))
    visible = (path for path in ours if not any(part[0] in "._" for part in path.relative_to(folder).parts))
    left = [path for path in visible if path.resolve() not in taken and path.name not in DESCRIPTIONS]
    if left:
        raise ConfigError(
            f"{folder}: found {left[0].relative_to(folder)} beside files of the split {' and '.join(found)}, "
            f"which no split takes ({len(left)} such); name one file, or rename it"
        )


def _prepared(source: str, found: Any, split: str | None) -> RowTable:
    """The rows of a set that `datasets` holds as Arrow."""
    if isinstance(found, Mapping):
        found = found[choose_split(source, split, list(found))]
    tables = found.with_format("arrow").iter(ROW_GROUP)
    return RowTable(rows=_table_rows(source, tables), total=len(found))


def _parquet(source: str, paths: list[Path]) -> RowTable:
    files = []
    for path in paths:
        try:
            files.append((str(path), pq.ParquetFile(path)))
        except (OSError, pa.ArrowException) as error:
            raise ConfigError(f"{path}: cannot be read as a Parquet file: {error}") from None
    rows = (row for name, file in files for row in _table_rows(name, file.iter_batches(batch_size=ROW_GROUP)))
    return RowTable(rows=_counted(rows), total=sum(file.metadata.num_rows for _, file in files))


def _json(source: str, paths: list[Path]) -> RowTable:
    packed = any(is_packed(path) for path in paths)
    sizes = [path.stat().st_size for path in paths]

    def rows() -> Rows:
        for place, path in enumerate(paths):
            for row in json_rows(path):
                yield str(path), replace(row, done=row.done + sum(sizes[:place]))

    return RowTable(rows=rows(), total=None if packed else sum(sizes))


def _counted(rows: Rows) -> Rows:
    return ((name, replace(row, done=number)) for number, (name, row) in enumerate(rows, start=1))


READERS: dict[str, Callable[[str, list[Path]], RowTable]] = {"json": _json, "parquet": _parquet}


def _table_rows(source: str, tables: Iterable[Any]) -> Rows:
    """Yield every row of Arrow tables with its place."""
    rows = enumerate(arrow_rows(tables))
    while True:
        try:
            index, (value, problem) = next(rows)
        except StopIteration:
            return
        except UNUSABLE as error:
            raise ConfigError(_why(source, error)) from None
        yield source, JsonRow(where=f"row {index}", index=index, done=index + 1, value=value, problem=problem)


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
    names = ("content", "role") if "messages" in row else ("from", "value")
    message = pa.struct(
        [*((name, pa.string()) for name in names), ("loss", pa.bool_()), (EXTRA, pa.string())]
    )
    types = {"reward": pa.float64(), EXTRA: pa.string(), "id": pa.string(), "item_id": pa.string()}
    columns = [name for name in CONTENT_COLUMNS if name in row or name == "reward"]
    return pa.schema([(name, types.get(name, pa.list_(message))) for name in (*columns, EXTRA)])


def _packed(row: dict[str, Any]) -> dict[str, Any]:
    """The columns of a row; its other keys, and those of its messages, become JSON text."""
    own = {
        key: [_with_extra(item, MESSAGE_FIELDS) for item in value] if isinstance(value, list) else value
        for key, value in row.items()
        if key in CONTENT_COLUMNS
    }
    return own | _with_extra({key: value for key, value in row.items() if key not in own}, ())


def _with_extra(item: dict[str, Any], own: Sequence[str]) -> dict[str, Any]:
    extra = {key: value for key, value in item.items() if key not in own}
    kept = {key: value for key, value in item.items() if key in own}
    return kept | {EXTRA: json.dumps(extra, ensure_ascii=False) if extra else None}


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
