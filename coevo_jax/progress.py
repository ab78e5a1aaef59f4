"""What the user sees while a run goes on: one line per finished phase, and counters while it works."""

import sys
import time
from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text


class Screen(Console):
    """A terminal, a file or a pipe; printing to a pipe that nobody reads any more raises BrokenPipeError."""

    def on_broken_pipe(self) -> None:
        """Leave the exit code to the command: rich would make it 1."""
        raise  # what rich is handling when it calls this


CONSOLE = Screen(highlight=False, markup=False, width=None if sys.stdout.isatty() else 120)


class Stopwatch:
    """Seconds since it was made, on top of those an interrupted run has spent already."""

    def __init__(self, spent: float = 0.0) -> None:
        self._start = time.monotonic() - spent

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._start

    def counter(self, label: str) -> Callable[[int, int], None]:
        """A callback (done, total) that draws a bar; nothing is drawn without a terminal."""
        bar = progress_bar()
        task = bar.add_task(label, total=None, words="")

        def update(done: int, total: int) -> None:
            if done == 0 or not bar.live.is_started:
                bar.start()
            bar.update(task, completed=done, total=total)
            if done >= total:
                bar.stop()

        return update


def progress_bar() -> Progress:
    """A bar with a label, a count, free words and the time left."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[words]}"),
        TimeRemainingColumn(),
        console=CONSOLE,
        transient=True,
        disable=not CONSOLE.is_terminal,
    )


def say(name: str, seconds: float, words: str) -> None:
    """One line for a finished phase."""
    CONSOLE.print(Text(f"{name:<32}", style="bold"), f"{seconds:7.1f} s  {words}", soft_wrap=True)
