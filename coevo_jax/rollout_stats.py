"""What a block of episodes cost and brought, as sums, and the progress shown while it is played."""

import time
from dataclasses import dataclass, field
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from coevo_jax.trajectory import Ending, Trajectory


@dataclass(frozen=True, kw_only=True)
class RolloutStats:
    """Sums over the episodes of one or more blocks; shares and means follow from them."""

    episodes: int = 0
    turns: int = 0
    agent_tokens: int = 0  # drawn (or scripted) tokens of all episodes
    token_places: int = 0  # decode iterations x slots: what full slots would have drawn
    prefill_tokens: int = 0
    seconds: float = 0.0
    env_wait_seconds: float = 0.0  # the host waited for environments; the device may have decoded meanwhile
    env_calls: int = 0
    env_seconds: float = 0.0  # time inside environments, summed over their threads
    reward_sum: float = 0.0  # over episodes without a fault
    endings: dict[str, int] = field(default_factory=dict)  # by Ending value

    @property
    def faults(self) -> int:
        return self.endings.get(Ending.FAULT.value, 0)

    @property
    def mean_reward(self) -> float:
        """Mean over the episodes without a fault; 0 where there is none."""
        return self.reward_sum / max(1, self.episodes - self.faults)

    @property
    def occupancy(self) -> float:
        """Share of the slots' decode places that drew a token; 0 where nothing was decoded."""
        return self.agent_tokens / max(1, self.token_places)


class ProgressBar:
    """Episodes, turns/s, tokens/s and mean reward: a bar on a terminal, one line at the end elsewhere."""

    def __init__(self, console: Console | None, *, label: str, total: int):
        self._console, self._label, self._total = console, label, total
        self._started = time.monotonic()
        self._episodes = self._played = self._turns = self._tokens = 0
        self._reward = 0.0
        self._live: Progress | None = None
        if console is not None and console.is_terminal and total:
            columns = (
                TextColumn(label),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rates]}"),
            )
            self._live = Progress(*columns, TimeRemainingColumn(), console=console, transient=True)
            self._task = self._live.add_task(label, total=total, rates="")

    def __enter__(self) -> "ProgressBar":
        self._started = time.monotonic()
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
        elif self._console is not None and kind is None:
            self._console.print(
                f"{self._label}: {self._episodes}/{self._total} episodes, {self._rates()}",
                highlight=False,
                soft_wrap=True,
            )

    def finish_episode(self, trajectory: Trajectory) -> None:
        """Count one more episode."""
        self._episodes += 1
        self._turns += len(trajectory.turns)
        self._tokens += int(trajectory.agent_mask.sum())
        if trajectory.ending is not Ending.FAULT:
            self._played += 1
            self._reward += trajectory.reward
        if self._live is not None:
            self._live.update(self._task, completed=self._episodes, rates=self._rates())

    def _rates(self) -> str:
        seconds = max(1e-9, time.monotonic() - self._started)
        mean = self._reward / max(1, self._played)
        return (
            f"{self._turns / seconds:.1f} turns/s, {self._tokens / seconds:.0f} tokens/s, reward {mean:.3f}"
        )
