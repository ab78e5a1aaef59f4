"""A run folder that the last commit before recipes made.

`old_run.tar.xz` is a finished run of the toy environment with two agents and one round (its config.yaml is in
it), without the page and the TensorBoard file that are made again from the rest.
"""

import tarfile
from pathlib import Path

ARCHIVE = Path(__file__).parent / "old_run.tar.xz"


def unpack(folder: Path) -> Path:
    """The run's folder, inside this one."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder / "old_run"
