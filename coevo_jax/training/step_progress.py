"""What is shown while a phase learns: a bar on a terminal, elsewhere a line every few seconds."""

from collections.abc import Mapping

from coevo_jax.progress import CONSOLE, Pulse, Stopwatch, progress_bar, time_words
from coevo_jax.run_folder.run import Run
from coevo_jax.run_folder.time_left import episodes_played, time_after
from coevo_jax.training.pace import Pace


class StepProgress:
    """Shows the steps of a phase, and how long it and the run still take by what was measured so far."""

    def __init__(self, run: Run, phase: str, steps: int, position: int, pace: Pace, watch: Stopwatch) -> None:
        self._run, self._phase, self._steps, self._done = run, phase, steps, position
        self._pace, self._watch = pace, watch
        self._pulse = Pulse()
        self._bar = progress_bar()
        self._task = self._bar.add_task(phase, total=steps, completed=position, words="")

    def __enter__(self) -> "StepProgress":
        least = self._pace.least_seconds(self._steps - self._done)
        if least:
            words = f"at least {time_words(least)} at the chips' published rate"
            CONSOLE.print(f"{self._phase}: {self._steps - self._done} steps, {words}", soft_wrap=True)
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, done: int, values: Mapping[str, float]) -> None:
        """Take over the metrics of the newest of `done` steps."""
        if CONSOLE.is_terminal:
            accuracy = values.get("rewards/accuracies")
            words = f"loss {values['loss']:.3f}" + (
                f"  accuracy {accuracy:.2f}" if accuracy is not None else ""
            )
            self._bar.update(self._task, completed=done, words=f"{words}  {self._pace.words()}")
        elif self._pulse.due():
            CONSOLE.print(self.line(done, values), soft_wrap=True)

    def line(self, done: int, values: Mapping[str, float]) -> str:
        """Steps of all, loss, margin, rate and time left, as far as they are known."""
        margin = values.get("rewards/margins")
        sides = [values.get(f"probability/{side}") for side in ("expert", "own")]
        words = [
            f"{done}/{self._steps} steps",
            f"loss {values['loss']:.3f}",
            "" if margin is None else f"margin {margin:.3f}",
            "" if None in sides else f"D {sides[0]:.2f} of experts' and {sides[1]:.2f} of own steps",
            self._pace.words(),
            self._time_left(done),
        ]
        return f"{self._phase}: {', '.join(filter(None, words))}"

    def _time_left(self, done: int) -> str:
        left = self._pace.seconds_for(self._steps - done)
        if left is None:
            return ""
        measured = {record.name: record.seconds for record in self._run.manifest.done}
        measured[self._phase] = self._watch.seconds + left
        manifest = self._run.manifest
        after = time_after(self._run.config, measured, self._phase, episodes_played(manifest))
        whole = after.words_of(time_words(left + after.seconds))
        words = f"{time_words(left)} left of the phase, {whole} of the run"
        return words + (f" ({after.unknown} phases are not measured yet)" if after.unknown else "")
