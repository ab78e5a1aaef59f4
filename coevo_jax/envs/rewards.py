"""One reward in [0, 1] of an episode out of the numbers that a hub's environment gives turn by turn."""

import math
from typing import Any, Literal

from coevo_jax.envs.env import EnvFault

RewardOf = Literal["last", "sum"]


class RewardCount:
    """Counts the rewards of an episode: the last one that was given, or their sum.

    Args:
      of: last takes the newest reward that is not null, sum adds them all up.
      scale: the rewards that are 0 and 1 here; what lies outside is cut off.
    """

    def __init__(self, of: RewardOf, scale: tuple[float, float]):
        self._of, self._scale, self._total = of, scale, 0.0

    def add(self, reward: Any) -> None:
        """Take what a turn gave; null gives nothing.

        Raises:
          EnvFault: it is no finite number.
        """
        if reward is None:
            return
        if not isinstance(reward, int | float) or not math.isfinite(reward):
            raise EnvFault(f"reward: found {reward!r:.60}, expected a finite number or null")
        self._total = float(reward) + (self._total if self._of == "sum" else 0.0)
        self._given = True

    _given = False

    @property
    def value(self) -> float:
        """The reward so far, in [0, 1]; 0 where nothing was given yet."""
        low, high = self._scale
        return min(1.0, max(0.0, (self._total - low) / (high - low))) if self._given else 0.0
