"""sha256 of files, whole folders of them, and of checkpoints beside the steps that follow.

What lies on a bucket is not read again: it has the checksum that the bucket made of what it received, and
keeps. That is "crc32c:" and the bucket's words in place of a sha256.
"""

import hashlib
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from etils import epath
from etils.epath import backend

CHUNK = 1 << 20  # bytes that are read at a time

Digests = dict[str, str]
"""Path inside a folder -> sha256, or the bucket's own checksum."""
CRC32C = "crc32c:"  # how the checksums of buckets begin


def file_digest(path: epath.PathLike, most: int | None = None) -> str:
    """The sha256 of a file, or of its first `most` bytes."""
    total, left = hashlib.sha256(), most
    with epath.Path(path).open("rb") as file:
        while chunk := file.read(CHUNK if left is None else min(CHUNK, left)):
            total.update(chunk)
            left = None if left is None else left - len(chunk)
    return total.hexdigest()


def files_below(folder: epath.Path) -> Iterator[epath.Path]:
    """Every file below a folder, step by step: on a bucket, walk() loses the gs:// and glob() knows no **."""
    for path in folder.iterdir():
        if path.is_dir():
            yield from files_below(path)
        else:
            yield path


def on_bucket(folder: epath.PathLike) -> bool:
    """Whether a folder lies on a bucket."""
    return "://" in str(folder)


def bucket_checksums(folder: epath.Path) -> Digests:
    """What a bucket says the checksums of the objects below a folder are, by one listing.

    Raises:
      OSError: it cannot be reached, or has no checksum of an object.
    """
    files: Any = backend.fsspec_backend.fs(str(folder))
    root = str(folder).partition("://")[2]
    files.invalidate_cache()  # else it tells what it was told before
    found: dict[str, Any] = files.find(root, detail=True)
    without = [name for name, one in found.items() if not one.get("crc32c")]
    if without:
        raise OSError(f"{without[0]}: the bucket tells no crc32c of it")
    return {name.removeprefix(f"{root}/"): f"{CRC32C}{one['crc32c']}" for name, one in found.items()}


def folder_digests(folder: epath.Path) -> Digests:
    """The sha256 of every file below a folder, or the checksums of its bucket."""
    if on_bucket(folder):
        return bucket_checksums(folder)
    return {str(path.relative_to(folder)): file_digest(path) for path in sorted(files_below(folder))}


def damage(folder: epath.Path, digests: Mapping[str, str]) -> str | None:
    """What is the first to be wrong with a folder's files; None where all are as they were."""
    told = bucket_checksums(folder) if any(one.startswith(CRC32C) for one in digests.values()) else {}
    for name, digest in digests.items():
        path = folder / name
        if digest.startswith(CRC32C):
            if (checksum := told.get(name)) != digest:
                return f"{path}: found {checksum or 'no object'}, expected {digest}, as it was committed"
            continue
        if not path.is_file():
            return f"{path}: missing, expected sha256 {digest[:12]}…"
        if (found := file_digest(path)) != digest:
            words = f"found {found[:12]}…, expected {digest[:12]}…"
            return f"{path}: changed since it was committed (sha256: {words})"
    return None


class Hashing:
    """The digests of a folder, made in a thread while the caller goes on."""

    def __init__(self, folder: epath.Path) -> None:
        self._folder = folder
        self._found: Digests = {}
        self._failed: Exception | None = None
        self._thread = threading.Thread(target=self._work, name="checkpoint-digests", daemon=True)
        self._thread.start()

    def done(self) -> bool:
        """Whether the digests are there, or reading has failed."""
        return not self._thread.is_alive()

    def result(self) -> Digests:
        """Wait for the digests.

        Raises:
          OSError: a file cannot be read.
        """
        self._thread.join()
        if self._failed is not None:
            raise self._failed
        return self._found

    def _work(self) -> None:
        try:
            self._found = folder_digests(self._folder)
        except Exception as error:  # told by whoever waits
            self._failed = error
