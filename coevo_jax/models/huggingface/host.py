"""Parameters that are put together on the host, where its memory is the device's: on CPUs.

A stored weight [out, in] is read some rows at a time and laid into its layer [in, out]. The rows are read to
places a little apart: those of a length that is a power of two would share few lines of the processor's
cache. Nothing is held twice. XLA's own transpose takes several times as long.
"""

import mmap
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding

from coevo_jax.models.huggingface.names import Entry
from coevo_jax.models.huggingface.shards import NUMPY_DTYPES, Stored

ROWS = 512  # of a stored weight that are read at a time
APART = 64  # bytes between rows
MOST_THREADS = 8


def fits_host(entry: Entry, leaf: Any, stored: Mapping[str, Stored]) -> bool:
    """Whether a parameter can be put together here: on one CPU, in the type that all of it is stored in."""
    sharding: NamedSharding = leaf.sharding
    devices = list(sharding.device_set)
    same = {NUMPY_DTYPES[stored[name].dtype] for _, name in entry.tensors()} == {np.dtype(leaf.dtype)}
    return len(devices) == 1 and devices[0].platform == "cpu" and same


def assemble(entry: Entry, leaf: Any, stored: Mapping[str, Stored]) -> jax.Array:
    """A parameter of its stored tensors, in memory of this process: no program may be given it up to."""
    whole = _pages(leaf.shape, np.dtype(leaf.dtype))

    def fill(layer: int | None, name: str) -> None:
        _read(stored[name], entry, whole if layer is None else whole[layer])

    # Two on one core, too: one reads while the other lays down.
    with ThreadPoolExecutor(max(2, min(_cores(), MOST_THREADS))) as threads:
        for done in [threads.submit(fill, layer, name) for layer, name in entry.tensors()]:
            done.result()
    return jax.device_put(whole, leaf.sharding)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _pages(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Memory of its own pages, large ones where the system has them: first touches cost most of a copy."""
    size = int(np.prod(shape)) * dtype.itemsize
    memory = mmap.mmap(-1, max(size, 1))
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, dtype, int(np.prod(shape))).reshape(shape)


def _read(stored: Stored, entry: Entry, into: np.ndarray) -> None:
    """Read a stored tensor into one layer of its parameter."""
    handle = os.open(stored.path, os.O_RDONLY)
    try:
        if not entry.into:
            _fill(handle, into.reshape(-1).view(np.uint8), stored.start, stored.path)
            return
        rows, columns = entry.tensor_shape
        theirs = into.reshape(columns, rows)
        bits = theirs.view(f"u{into.itemsize}")
        apart = np.empty((min(ROWS, rows), columns + APART // into.itemsize), bits.dtype)
        for start in range(0, rows, ROWS):
            count = min(ROWS, rows - start)
            place = stored.start + start * columns * into.itemsize
            _fill_rows(handle, apart[:count, :columns], place, stored.path)
            bits[:, start : start + count] = apart[:count, :columns].T
    finally:
        os.close(handle)


def _fill_rows(handle: int, into: np.ndarray, place: int, path: Path) -> None:
    """Read rows that lie apart, all of them by one call."""
    rows = [row.view(np.uint8).data for row in into]
    if os.preadv(handle, rows, place) == into.nbytes:
        return
    for number, row in enumerate(into):  # a call may stop early
        _fill(handle, row.view(np.uint8), place + number * row.nbytes, path)


def _fill(handle: int, into: np.ndarray, place: int, path: Path) -> None:
    """Read bytes until an array is full."""
    view, read = into.data, 0
    while read < len(view):
        count = os.preadv(handle, [view[read:]], place + read)
        if not count:
            raise OSError(f"{path}: ended while it was read")
        read += count
