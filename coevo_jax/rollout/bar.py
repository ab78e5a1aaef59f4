"""The progress shown while episodes are played."""

import threading
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from coevo_jax.progress import Pulse, time_words
from coevo_jax.trajectory import Trajectory


class ProgressBar:
    """Shows episodes, rates, reward, busy slots: a bar on a terminal, else lines on the way.

    Several threads may finish episodes.
    """

    def __init__(self, console: Console | None, *, label: str, total: int, slots: int):
        self._console, self._label, self._total, self._slots = console, label, total, slots
        self._started = time.monotonic()
        self._episodes = self._played = self._turns = self._tokens = self._busy = 0
        self._reward = 0.0
        self._lock = threading.Lock()
        self._pulse = None if console is None else Pulse(console)
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
            self._print(self._rates())

    def show_slots(self, busy: int) -> None:
        """Show how many slots play an episode now."""
        with self._lock:
            self._show(busy)

    def _show(self, busy: int) -> None:
        self._busy = busy
        if self._live is not None:
            words = f"{self._rates()}, {busy}/{self._slots} slots"
            self._live.update(self._task, completed=self._episodes, rates=words)
        elif self._pulse is not None and self._pulse.due():
            self._print(f"{self._rates()}, {busy}/{self._slots} slots{self._left()}")

    def finish_episode(self, trajectory: Trajectory) -> None:
        """Count one more episode."""
        with self._lock:
            self._episodes += 1
            self._turns += len(trajectory.turns) - trajectory.first_own_turn
            self._tokens += trajectory.written_tokens
            if trajectory.finished:
                self._played += 1
                self._reward += trajectory.reward
            self._show(self._busy)

    def _print(self, words: str) -> None:
        assert self._console is not None
        line = f"{self._label}: {self._episodes}/{self._total} episodes, {words}"
        self._console.print(line, highlight=False, soft_wrap=True)

    def _left(self) -> str:
        """Time left of these episodes, once there are some to go by."""
        if not self._episodes:
            return ""
        each = (time.monotonic() - self._started) / self._episodes
        return f", {time_words((self._total - self._episodes) * each)} left"

    def _rates(self) -> str:
        seconds = max(1e-9, time.monotonic() - self._started)
        mean = self._reward / max(1, self._played)
        return (
            f"{self._turns / seconds:.1f} turns/s, {self._tokens / seconds:.0f} tokens/s, reward {mean:.3f}"
        )
