"""The safetensors files of a checkpoint folder: headers that tell what they hold, and slices of tensors."""

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from coevo_jax.config.options import ModelConfig
from coevo_jax.config.strict import ConfigError
from coevo_jax.models.huggingface.names import entries

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
DTYPES = ("F32", "BF16", "F16")
LISTED = 5  # problems of a kind that a message names
IGNORED = ("rotary_emb.inv_freq",)  # buffers that old versions stored


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A stored tensor as its file's header describes it."""

    path: Path  # of the file that holds it
    shape: tuple[int, ...]
    dtype: str


def read_headers(folder: Path) -> dict[str, Stored]:
    """Every tensor of a checkpoint by its name, in the order of the files. No weight is read.

    Raises:
      ConfigError: there are no weights, a file is missing, truncated or not a safetensors file.
    """
    stored: dict[str, Stored] = {}
    for file, names in _contents(folder).items():
        path = folder / file
        tensors = open_file(path)
        for name in tensors.keys():  # noqa: SIM118  # not a mapping
            part = tensors.get_slice(name)
            stored[name] = Stored(path=path, shape=tuple(part.get_shape()), dtype=part.get_dtype())
        lost = [name for name in names or () if name not in stored or stored[name].path != path]
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
    stored = read_headers(folder)
    wanted = {
        name: entry.tensor_shape for entry in entries(config, vocab_size) for _, name in entry.tensors()
    }
    found = {name for name in stored if not name.endswith(IGNORED)}
    if config.tie_embeddings:
        found.discard("lm_head.weight")  # some folders store the shared matrix twice
    missing, unexpected = sorted(wanted.keys() - found), sorted(found - wanted.keys())
    problems = [_missing(folder, name, unexpected) for name in missing[:LISTED]]
    problems += [f"{stored[name].path}: unexpected tensor {name}" for name in unexpected[:LISTED]]
    for name in sorted(wanted.keys() & found):
        has = stored[name]
        if has.shape != wanted[name]:
            expected = list(wanted[name])
            problems.append(f"{has.path}: {name}: found shape {list(has.shape)}, expected {expected}")
        elif has.dtype not in DTYPES:
            problems.append(
                f"{has.path}: {name}: found type {has.dtype}, expected one of {', '.join(DTYPES)}"
            )
    if problems:
        more = max(len(missing) - LISTED, 0) + max(len(unexpected) - LISTED, 0)
        raise ConfigError("\n".join(problems[: 3 * LISTED]) + (f"\n… and {more} more" if more else ""))
    return {name: has for name, has in stored.items() if name in wanted}


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


def open_file(path: Path) -> Any:
    """A handle on the tensors of a file, which are read slice by slice; dropping it gives its memory back."""
    try:
        return safe_open(path, framework="numpy")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file, though {INDEX} names it") from None
    except (SafetensorError, OSError) as error:
        raise ConfigError(
            f"{path}: cannot be read as a safetensors file; it may be truncated, copy it again ({error})"
        ) from None


def _missing(folder: Path, name: str, unexpected: list[str]) -> str:
    close = difflib.get_close_matches(name, unexpected, n=1)
    return f"{folder}: the tensor {name} is missing" + (f" (found {close[0]})" if close else "")
