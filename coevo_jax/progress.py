"""What the user sees while a run goes on: one line per finished phase, and counters while it works."""

import sys
import time
from collections.abc import Callable
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text


class Screen(Console):
    """A terminal, a file or a pipe; whoever prints to a pipe that nobody reads gets a BrokenPipeError."""

    def on_broken_pipe(self) -> None:
        """Leave the exit code to the command: rich would make it 1."""
        raise  # what rich is handling when it calls this


CONSOLE = Screen(highlight=False, markup=False, width=None if sys.stdout.isatty() else 120)


LIVE_SECONDS = 5.0  # between two lines of progress where there is no terminal to draw a bar on


class Pulse:
    """Says when the next line of progress is due on an output that is no terminal; never on one that is."""

    def __init__(self, console: Console = CONSOLE) -> None:
        self._console = console
        self._next = time.monotonic() + LIVE_SECONDS

    def due(self) -> bool:
        """Whether to print a line now; the next one is then due some seconds later."""
        now = time.monotonic()
        if self._console.is_terminal or self._console.quiet or now < self._next:
            return False
        self._next = now + LIVE_SECONDS
        return True


def time_words(seconds: float) -> str:
    """A stretch of time as 0:03:05."""
    return str(timedelta(seconds=round(seconds)))


class Stopwatch:
    """Seconds since it was made, on top of those an interrupted run has spent already."""

    def __init__(self, spent: float = 0.0) -> None:
        self._start = time.monotonic() - spent

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._start

    def counter(self, label: str) -> Callable[[int, int], None]:
        """A callback (done, total) that draws a bar, or prints a line every few seconds."""
        bar, pulse = progress_bar(), Pulse()
        task = bar.add_task(label, total=None, words="")

        def update(done: int, total: int) -> None:
            if done == 0 or not bar.live.is_started:
                bar.start()
            bar.update(task, completed=done, total=total)
            if pulse.due():
                CONSOLE.print(f"{label}: {done}/{total}", soft_wrap=True)
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
