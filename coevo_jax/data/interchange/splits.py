"""The choice of a set's split."""

from collections.abc import Sequence

from coevo_jax.config.strict import ConfigError, nearest


def choose_split(source: str, wanted: str | None, found: Sequence[str]) -> str:
    """The split to read: the one that is wanted, else train, else the only one.

    Raises:
      ConfigError: there is no such split.
    """
    if wanted is None and len(found) == 1:
        return found[0]
    wanted = "train" if wanted is None else wanted
    if wanted not in found:
        raise ConfigError(f"{source}: found no split {wanted!r}{nearest(wanted, found)}")
    return wanted
