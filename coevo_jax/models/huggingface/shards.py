"""The safetensors files of a checkpoint folder: headers that tell what they hold, and slices of tensors."""

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open

from coevo_jax.config.options import ModelConfig
from coevo_jax.config.strict import ConfigError
from coevo_jax.files import LFS_WORDS, is_lfs_pointer
from coevo_jax.models.huggingface.names import entries

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
NUMPY_DTYPES = {
    "F32": np.dtype(np.float32),
    "BF16": np.dtype(jnp.bfloat16),
    "F16": np.dtype(np.float16),
}
LISTED = 5  # problems of a kind that a message names
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
COMPARED = 1 << 22  # numbers of each of two tensors that are held at a time
IGNORED = ("rotary_emb.inv_freq",)  # buffers that old versions stored


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A stored tensor as its file's header describes it."""

    path: Path  # of the file that holds it
    shape: tuple[int, ...]
    dtype: str
    start: int  # of its bytes in the file


def read_headers(folder: Path, *, tied: bool = False) -> dict[str, Stored]:
    """Every tensor of a checkpoint by its name, in the order of the files. No weight is read.

    Args:
      tied: the output head is the embedding. Some indices list it none the less; no file need hold it.

    Raises:
      ConfigError: there are no weights, or two places to take them from; a file is missing, truncated or no
        safetensors file.
    """
    stored: dict[str, Stored] = {}
    for file, names in _contents(folder).items():
        path = folder / file
        tensors, starts = open_file(path), _starts(path)
        for name in tensors.keys():  # noqa: SIM118  # not a mapping
            part = tensors.get_slice(name)
            if name in stored and not name.endswith(IGNORED):
                raise ConfigError(
                    f"{folder}: the tensor {name} stands both in {stored[name].path.name} and in {file}; "
                    "expected it in one of them: remove the file that is left over"
                )
            shape, start = tuple(part.get_shape()), starts[name]
            stored[name] = Stored(path=path, shape=shape, dtype=part.get_dtype(), start=start)
        lost = [name for name in names or () if name not in stored or stored[name].path != path]
        lost = [name for name in lost if not (tied and name == HEAD) and not name.endswith(IGNORED)]
        if lost:
            more = f" (and {len(lost) - 1} more)" if len(lost) > 1 else ""
            raise ConfigError(
                f"{folder / INDEX}: {lost[0]} is to stand in {file}, which does not hold it{more}"
            )
    return stored


def check_checkpoint(folder: Path, config: ModelConfig, vocab_size: int) -> dict[str, Stored]:
    """Compare the headers of a checkpoint with what the model needs; returns those of its tensors.

    Raises:
      ConfigError: names every tensor that is missing, unexpected, of another shape or of an unusable type.
    """
    stored = read_headers(folder, tied=config.tie_embeddings)
    wanted = {
        name: entry.tensor_shape for entry in entries(config, vocab_size) for _, name in entry.tensors()
    }
    found = {name for name in stored if not name.endswith(IGNORED)}
    if config.tie_embeddings:
        found.discard(HEAD)  # some folders store the shared matrix twice
    missing, unexpected = sorted(wanted.keys() - found), sorted(found - wanted.keys())
    problems = [_missing(folder, name, unexpected) for name in missing[:LISTED]]
    problems += [f"{stored[name].path}: unexpected tensor {name}" for name in unexpected[:LISTED]]
    for name in sorted(wanted.keys() & found):
        has = stored[name]
        if has.shape != wanted[name]:
            expected = list(wanted[name])
            problems.append(f"{has.path}: {name}: found shape {list(has.shape)}, expected {expected}")
        elif has.dtype not in NUMPY_DTYPES:
            problems.append(
                f"{has.path}: {name}: found type {has.dtype}, expected one of {', '.join(NUMPY_DTYPES)}"
            )
    if problems:
        more = max(len(missing) - LISTED, 0) + max(len(unexpected) - LISTED, 0)
        raise ConfigError("\n".join(problems[: 3 * LISTED]) + (f"\n… and {more} more" if more else ""))
    if config.tie_embeddings and HEAD in stored:
        _compare_tied(stored[HEAD], stored[EMBEDDING])
    return {name: has for name, has in stored.items() if name in wanted}


def _compare_tied(head: Stored, embedding: Stored) -> None:
    """Refuse an output head that differs from the embedding, which a tied model would drop.

    Raises:
      ConfigError: the first number that differs, and both files.
    """
    where = f"{head.path}: {HEAD}"
    if head.shape != embedding.shape:
        raise ConfigError(
            f"{where}: found shape {list(head.shape)}, expected {list(embedding.shape)} of {EMBEDDING}, "
            "to which config.json ties it (tie_word_embeddings)"
        )
    pair = [open_file(one.path).get_slice(name) for one, name in ((head, HEAD), (embedding, EMBEDDING))]
    rows = max(1, COMPARED // max(1, head.shape[1]))
    for start in range(0, head.shape[0], rows):
        stop = min(start + rows, head.shape[0])
        ours, theirs = (np.asarray(part[start:stop], np.float32) for part in pair)
        if not np.array_equal(ours, theirs, equal_nan=True):
            row, column = np.argwhere((ours != theirs) & ~(np.isnan(ours) & np.isnan(theirs)))[0]
            raise ConfigError(
                f"{where}: found {ours[row, column]} in row {start + row}, expected {theirs[row, column]} as "
                f"{EMBEDDING} of {embedding.path.name} has it: config.json ties both (tie_word_embeddings: "
                "true), and one of them would be lost; set it to false there to keep both"
            )


def _contents(folder: Path) -> Mapping[str, set[str] | None]:
    """The files of a checkpoint; with an index, the tensors each is to hold."""
    if (folder / INDEX).is_file():
        try:
            weights = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"]
            files: dict[str, set[str] | None] = {}
            for name, file in weights.items():
                if Path(str(file)).name != str(file) or str(file) in ("", ".."):
                    raise ValueError(f"found the file {str(file)!r}, expected one of this folder")
                names = files.setdefault(str(file), set())
                assert names is not None
                names.add(name)
            if WHOLE not in files and (folder / WHOLE).is_file():
                raise ConfigError(
                    f"{folder}: holds both {WHOLE} and {INDEX}, which names other files; expected one of "
                    "them: remove what is left over"
                )
            return files
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"{folder / INDEX}: expected a mapping weight_map of files: {error}") from None
    if (folder / WHOLE).is_file():
        return {WHOLE: None}
    others = sorted(path.name for path in folder.glob("*") if path.suffix in (".bin", ".pt", ".safetensors"))
    raise ConfigError(
        f"{folder}: holds neither {WHOLE} nor {INDEX}"
        + (f" (found {', '.join(others[:LISTED])}); save it with transformers" if others else "")
    )


def _starts(path: Path) -> dict[str, int]:
    """Where the bytes of each tensor of a readable file begin."""
    with path.open("rb") as handle:
        length = int.from_bytes(handle.read(8), "little")
        header = json.loads(handle.read(length))
    tensors = {name: about for name, about in header.items() if name != "__metadata__"}
    return {name: 8 + length + about["data_offsets"][0] for name, about in tensors.items()}


def open_file(path: Path) -> Any:
    """A handle on the tensors of a file, which are read slice by slice; dropping it gives its memory back."""
    try:
        return safe_open(path, framework="numpy")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file, though {INDEX} names it") from None
    except (SafetensorError, OSError) as error:
        if is_lfs_pointer(path):
            raise ConfigError(f"{path}: {LFS_WORDS}") from None
        raise ConfigError(
            f"{path}: cannot be read as a safetensors file; it may be truncated, copy it again ({error})"
        ) from None


def _missing(folder: Path, name: str, unexpected: list[str]) -> str:
    close = difflib.get_close_matches(name, unexpected, n=1)
    return f"{folder}: the tensor {name} is missing" + (f" (found {close[0]})" if close else "")
