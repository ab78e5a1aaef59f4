"""How far a run has come, for whoever looks at its folder from outside."""

from dataclasses import dataclass
from pathlib import Path

from coevo_jax.files import as_called
from coevo_jax.recipe import schedule
from coevo_jax.run_folder.folder import read_config
from coevo_jax.run_folder.lock import is_held
from coevo_jax.run_folder.manifest import MANIFEST, read_manifest


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Whether a run goes on, and in words where it is; no words for one that is finished."""

    under_way: bool
    words: str


def standing_of(folder: Path) -> Standing:
    """Where a run stands; one whose folder holds results alone counts as finished."""
    if not (folder / MANIFEST).is_file():
        return Standing(under_way=False, words="")
    phases = [phase.name for phase in schedule(read_config(folder))]
    done = {record.name for record in read_manifest(folder).done}
    left = [name for name in phases if name not in done]
    if not left:
        return Standing(under_way=False, words="")
    place = f"{len(phases) - len(left)} of {len(phases)} phases are done, {left[0]} is next or has begun"
    if is_held(folder):
        return Standing(under_way=True, words=f"The run is under way: {place}.")
    resume = as_called(f"python -m launch.train --resume {folder}")
    return Standing(under_way=False, words=f"The run has stopped: {place}. It goes on with {resume}.")
