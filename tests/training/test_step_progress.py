"""Off a terminal a phase says every few seconds where it stands and how long it and the run still take."""

import io
from types import SimpleNamespace
from typing import Any

import pytest

import coevo_jax.progress as progress
import coevo_jax.training.step_progress as step_progress
from coevo_jax.progress import Pulse, Screen, Stopwatch, time_words
from coevo_jax.rollout.bar import ProgressBar
from coevo_jax.run_folder.manifest import Manifest, PhaseRecord
from coevo_jax.run_folder.time_left import Played, time_after
from coevo_jax.training.step_progress import StepProgress
from tests.tiny import tiny_config

PHASE = "round-01/learn_failure"


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass when a test says so."""
    now = SimpleNamespace(seconds=100.0)
    monkeypatch.setattr("time.monotonic", lambda: now.seconds)
    return now


def test_a_line_is_due_every_few_seconds_off_a_terminal_and_never_on_one(clock):
    pulse = Pulse(Screen(file=io.StringIO()))
    terminal = Pulse(Screen(file=io.StringIO(), force_terminal=True))
    quiet = Pulse(Screen(file=io.StringIO(), quiet=True))
    due = []
    for _ in range(30):
        clock.seconds += 1
        due.append(pulse.due())
        assert not terminal.due() and not quiet.due()
    assert [second for second, one in enumerate(due, start=1) if one] == [5, 10, 15, 20, 25, 30]


def test_time_is_written_for_people():
    assert [time_words(seconds) for seconds in (0.4, 185, 7265)] == ["0:00:00", "0:03:05", "2:01:05"]


def test_phases_that_come_are_expected_to_take_what_those_like_them_took(tmp_path):
    config = tiny_config(tmp_path, "rounds=2", "explore.tasks=['40:60','40:80']")
    first = {
        "warm_start": 50.0,
        "round-00/evaluate_target": 3.0,
        "round-01/explore_target": 10.0,
        "round-01/explore_failure": 12.0,
        "round-01/learn_failure": 20.0,
    }
    # hard negatives: the mean of both explorations; the target's learning: that of the failure agent's; both
    # evaluations; then the second round, which explores twice the tasks.
    one_round = 11 + 20 + 3 + 3
    second = 2 * 10 + 2 * 12 + 20 + 2 * 11 + 20 + 3 + 3
    assert time_after(config, first, PHASE) == (pytest.approx(one_round + second), 0, 0)
    assert time_after(config, first | {"round-01/explore_hard_negatives": 7.0}, PHASE).seconds == (
        pytest.approx(one_round - 11 + second - 22 + 14)
    )


def test_a_kind_that_was_not_measured_is_reckoned_from_what_was(tmp_path):
    options = ("rounds=1", "explore.tasks=['40:60']", "explore.samples=2", "warm_start.tasks='0:40'")
    config = tiny_config(tmp_path, *options, "warm_start.epochs=5", "agents.target.epochs=3")
    warm = {"warm_start": 50.0}
    # A demonstration takes 50 s / (40 * 5); the failure agent learns from 2 sides, the target from 3.
    passes = {name: config.agents[name].epochs for name in ("target", "failure")}
    assert passes["target"] == 3
    learning = 0.25 * 20 * (2 * passes["failure"] + 3 * passes["target"])
    assert time_after(config, warm, "warm_start") == (pytest.approx(learning), 2, 6)
    evaluated = warm | {"round-00/evaluate_target": 3.0}
    playing = (
        3 * 3.0 / 12 * 20 * 2 + 2 * 3.0
    )  # three explorations by the evaluation's episode, two evaluations
    played = {"round-00/evaluate_target": Played(episodes=12, failures=9)}
    found = time_after(config, evaluated, "round-00/evaluate_target", played)
    assert found == (pytest.approx(0.75 * learning + playing), 5, 0)
    assert found.words_of("0:01:00") == "about 0:01:00"


def shown(tmp_path, monkeypatch, pace: Any) -> tuple[StepProgress, io.StringIO]:
    config = tiny_config(tmp_path)
    done = tuple(
        PhaseRecord(name=name, seconds=4.0)
        for name in (
            "prepare",
            "warm_start",
            "round-00/evaluate_target",
            "round-01/explore_target",
            "round-01/explore_failure",
        )
    )
    run: Any = SimpleNamespace(config=config, manifest=Manifest(config_sha256="", done=done))
    output = io.StringIO()
    monkeypatch.setattr(step_progress, "CONSOLE", Screen(file=output, width=200))
    return StepProgress(run, PHASE, 40, 0, pace, Stopwatch()), output


class FixedPace:
    """Two seconds a step."""

    def words(self) -> str:
        return "1,000 tokens/s"

    def seconds_for(self, steps: int) -> float | None:
        return 2.0 * steps

    def least_seconds(self, steps: int) -> float | None:
        return 0.5 * steps


def test_a_line_of_a_phase_says_all_that_is_known(tmp_path, monkeypatch, clock):
    progress_of, output = shown(tmp_path, monkeypatch, FixedPace())
    with progress_of:
        for done in range(1, 11):
            clock.seconds += 2
            progress_of.show(done, {"loss": 0.5, "rewards/margins": 0.25})
    begin, *lines = output.getvalue().splitlines()
    assert begin == f"{PHASE}: 40 steps, at least 0:00:20 at the chips' published rate"
    assert len(lines) == 3  # after 6, 12 and 18 seconds
    # 31 steps of 2 s; then hard negatives as explored, the target's learning as this one, two evaluations
    assert lines[-1] == (
        f"{PHASE}: 9/40 steps, loss 0.500, margin 0.250, 1,000 tokens/s, 0:01:02 left of the phase, "
        "0:02:34 of the run"
    )


def test_what_is_not_known_is_left_out(tmp_path, monkeypatch, clock):
    class NoPace(FixedPace):
        words = lambda self: ""  # noqa: E731
        seconds_for = least_seconds = lambda self, steps: None

    progress_of, output = shown(tmp_path, monkeypatch, NoPace())
    with progress_of:
        clock.seconds += 6
        progress_of.show(1, {"loss": 0.5})
    assert output.getvalue() == f"{PHASE}: 1/40 steps, loss 0.500\n"


def test_episodes_and_counters_say_where_they_are_too(monkeypatch, clock):
    output = io.StringIO()
    console = Screen(file=output, width=200)
    with ProgressBar(console, label="explore", total=4, slots=2) as bar:
        bar.show_slots(2)
        clock.seconds += 6
        bar.show_slots(2)
    first, last = output.getvalue().splitlines()
    assert first == "explore: 0/4 episodes, 0.0 turns/s, 0 tokens/s, reward 0.000, 2/2 slots"
    assert last.startswith("explore: 0/4 episodes")
    monkeypatch.setattr(progress, "CONSOLE", Screen(file=(output := io.StringIO()), width=200))
    count = Stopwatch().counter("experts")
    count(1, 9)
    clock.seconds += 6
    count(2, 9)
    assert output.getvalue() == "experts: 2/9\n"
