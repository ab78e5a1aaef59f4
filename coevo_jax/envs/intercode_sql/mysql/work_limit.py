"""What one query may cost: steps of work, the same on every machine, and seconds."""

import time

from coevo_jax.envs.intercode_sql.mysql.patterns import TimeIsUp
from coevo_jax.envs.intercode_sql.sqlite_sandbox import QueryLimits

INSTRUCTIONS_PER_ROW = 20
"""`QueryLimits.instructions` that one row read, joined, tested or grouped counts as."""
ROWS_PER_LOOK = 2_000


class Budget:
    """Counts the work of one query at a time."""

    def __init__(self, limits: QueryLimits):
        self._limits = limits
        self.start()

    def start(self) -> None:
        """A new query begins."""
        self._left = self._limits.instructions // INSTRUCTIONS_PER_ROW
        self._look = ROWS_PER_LOOK
        self.deadline = time.monotonic() + self._limits.seconds

    def spend(self, rows: int) -> None:
        """Count rows that were looked at.

        Raises:
          TimeIsUp: they are too many by now, or took too long.
        """
        self._left -= rows
        self._look -= rows
        if self._left < 0:
            raise TimeIsUp
        if self._look <= 0:
            self._look = ROWS_PER_LOOK
            if time.monotonic() > self.deadline:
                raise TimeIsUp
