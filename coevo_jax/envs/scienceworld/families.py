"""The simulator's task families: their variations, the splits made of them, and their turn caps.

Splits: *seen* is dev and *unseen* is test, in all of this package. They are the simulator's own (arXiv
2203.07540): of every family the first half of its variations is train, the next quarter dev, the rest test,
so that the splits share no pair of family and variation, and every family stands in all three. With the 24
families of ETO (arXiv 2403.02502) that is 2286 / 1143 / 1162 tasks. ETO's own sizes are 1483 / 194 / 211, and
54 of its dev pairs also stand in its train split, so numbers on its seen split are not comparable to ours.
"""

from collections.abc import Iterable, Mapping

from coevo_jax.config.strict import nearest

SIMULATOR_VERSION = "1.2.3"
"""Version of the package `scienceworld` that the tables below were read from."""

VARIATIONS = {
    "boil": 30,
    "change-the-state-of-matter-of": 30,
    "chemistry-mix": 32,
    "chemistry-mix-paint-secondary-color": 36,
    "chemistry-mix-paint-tertiary-color": 36,
    "find-animal": 300,
    "find-living-thing": 300,
    "find-non-living-thing": 300,
    "find-plant": 300,
    "freeze": 30,
    "grow-fruit": 126,
    "grow-plant": 126,
    "identify-life-stages-1": 14,
    "identify-life-stages-2": 10,
    "inclined-plane-determine-angle": 168,
    "inclined-plane-friction-named-surfaces": 1386,
    "inclined-plane-friction-unnamed-surfaces": 162,
    "lifespan-longest-lived": 125,
    "lifespan-longest-lived-then-shortest-lived": 125,
    "lifespan-shortest-lived": 125,
    "measure-melting-point-known-substance": 436,
    "measure-melting-point-unknown-substance": 300,
    "melt": 30,
    "mendelian-genetics-known-plant": 120,
    "mendelian-genetics-unknown-plant": 480,
    "power-component": 20,
    "power-component-renewable-vs-nonrenewable-energy": 20,
    "test-conductivity": 900,
    "test-conductivity-of-unknown-substances": 600,
    "use-thermometer": 540,
}
"""Number of variations of each of the 30 families."""

TURN_CAPS = {
    "boil": 120,
    "change-the-state-of-matter-of": 120,
    "chemistry-mix": 60,
    "chemistry-mix-paint-secondary-color": 35,
    "chemistry-mix-paint-tertiary-color": 45,
    "find-animal": 20,
    "find-living-thing": 20,
    "find-non-living-thing": 15,
    "find-plant": 20,
    "freeze": 100,
    "grow-fruit": 100,
    "grow-plant": 60,
    "identify-life-stages-1": 50,
    "identify-life-stages-2": 20,
    "inclined-plane-determine-angle": 150,
    "inclined-plane-friction-named-surfaces": 150,
    "inclined-plane-friction-unnamed-surfaces": 200,
    "lifespan-longest-lived": 12,
    "lifespan-longest-lived-then-shortest-lived": 15,
    "lifespan-shortest-lived": 12,
    "measure-melting-point-known-substance": 80,
    "measure-melting-point-unknown-substance": 100,
    "melt": 100,
    "mendelian-genetics-known-plant": 150,
    "mendelian-genetics-unknown-plant": 150,
    "power-component": 20,
    "power-component-renewable-vs-nonrenewable-energy": 40,
    "test-conductivity": 50,
    "test-conductivity-of-unknown-substances": 50,
    "use-thermometer": 30,
}
"""Turns after which an episode is cut under `caps: own`: the simulator's own solutions, with a margin.

For short families the margin is on the longest of 24 solutions, for long ones on the usual length; the few
tasks whose solutions are longer (up to 140 turns in the families of changes of state) have no expert.
"""

ETO_TURN_CAPS = {
    "boil": 100,
    "change-the-state-of-matter-of": 80,
    "chemistry-mix": 60,
    "chemistry-mix-paint-secondary-color": 15,
    "chemistry-mix-paint-tertiary-color": 30,
    "find-animal": 15,
    "find-living-thing": 15,
    "find-non-living-thing": 15,
    "find-plant": 15,
    "freeze": 80,
    "grow-fruit": 60,
    "grow-plant": 30,
    "identify-life-stages-1": 30,
    "identify-life-stages-2": 30,
    "lifespan-longest-lived": 10,
    "lifespan-longest-lived-then-shortest-lived": 12,
    "lifespan-shortest-lived": 10,
    "measure-melting-point-known-substance": 120,
    "melt": 80,
    "power-component": 20,
    "power-component-renewable-vs-nonrenewable-energy": 30,
    "test-conductivity": 30,
    "test-conductivity-of-unknown-substances": 30,
    "use-thermometer": 30,
}
"""Turns after which ETO (arXiv 2403.02502) cuts an episode of its 24 families: `caps: eto`."""

CAPS = {"own": TURN_CAPS, "eto": ETO_TURN_CAPS}
"""Tables of turn caps that have a name."""

SHORT_FAMILIES = (
    "find-non-living-thing",
    "lifespan-longest-lived",
    "lifespan-shortest-lived",
    "lifespan-longest-lived-then-shortest-lived",
    "find-plant",
    "find-living-thing",
    "find-animal",
    "power-component",
    "identify-life-stages-2",
    "chemistry-mix-paint-secondary-color",
)
"""Families whose expert needs at most about 20 turns."""

NOT_IN_ETO = (
    "inclined-plane-determine-angle",
    "inclined-plane-friction-named-surfaces",
    "inclined-plane-friction-unnamed-surfaces",
    "measure-melting-point-unknown-substance",
    "mendelian-genetics-known-plant",
    "mendelian-genetics-unknown-plant",
)
"""Families that ETO leaves out: the longest."""

GROUPS = {
    "short": SHORT_FAMILIES,
    "eto": tuple(family for family in VARIATIONS if family not in NOT_IN_ETO),
    "all": tuple(VARIATIONS),
}
"""Names for several families at once."""


def split_variations(family: str, split: str) -> range:
    """Variations of a family in a split: the simulator's own halves and quarters, in order and disjoint."""
    count = VARIATIONS[family]
    quarter = count // 4
    return {
        "train": range(2 * quarter),
        "dev": range(2 * quarter, 3 * quarter),
        "test": range(3 * quarter, count),
    }[split]


def check_family(name: str) -> str:
    """Return the name of a family or group.

    Raises:
      ValueError: the name is neither's.
    """
    if name not in VARIATIONS and name not in GROUPS:
        valid = [*GROUPS, *VARIATIONS]
        hint = nearest(name, valid)
        names = "" if hint.startswith(" (valid") else f"; all names: {', '.join(valid)}"
        raise ValueError(f"a task family of ScienceWorld, or a group of them{hint}{names}")
    return name


def turn_caps(caps: str | Mapping[str, int]) -> Mapping[str, int]:
    """Look up a table of turn caps by its name; a table stands for itself."""
    return CAPS[caps] if isinstance(caps, str) else caps


def check_caps(caps: str | Mapping[str, int], families: Iterable[str]) -> None:
    """Raise ValueError where a table has a name that is no family, or lacks a family that is played."""
    table = turn_caps(caps)
    for name in table:
        if name not in VARIATIONS:
            raise ValueError(
                f"caps: {name!r} to be a task family of ScienceWorld{nearest(name, [*VARIATIONS])}"
            )
    missing = [family for family in expand_families(families) if family not in table]
    if missing:
        shown = f"{caps!r} to have" if isinstance(caps, str) else "a number of turns for"
        raise ValueError(f"caps: {shown} every family that is played; it lacks {', '.join(missing)}")


def expand_families(names: Iterable[str]) -> tuple[str, ...]:
    """Put the families of a group in its place; every family once, in order of its first mention."""
    return tuple(dict.fromkeys(family for name in names for family in GROUPS.get(name, (name,))))


def task_id(family: str, variation: int) -> str:
    """Name a task, as in "find-animal/17"."""
    return f"{family}/{variation}"


def parse_task_id(text: str) -> tuple[str, int]:
    """Take a task's name apart.

    Raises:
      ValueError: the simulator has no such task.
    """
    family, _, variation = text.rpartition("/")
    if family not in VARIATIONS or not variation.isdecimal() or int(variation) >= VARIATIONS[family]:
        raise ValueError("FAMILY/VARIATION of an existing variation, as in find-animal/17")
    return family, int(variation)
