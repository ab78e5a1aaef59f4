"""The event file holds what the metrics log holds, as it comes, whatever was killed in between."""

import shutil
from pathlib import Path

import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from coevo_jax.run_folder.metrics import MetricsLog
from coevo_jax.run_folder.results import load_results
from coevo_jax.run_folder.tensorboard import EventFile


def read_events(path: Path) -> list[Event]:
    data, events = path.read_bytes(), []
    while data:
        size = int.from_bytes(data[:8], "little")
        events.append(Event.FromString(data[12 : 12 + size]))
        data = data[16 + size :]
    return events


def scalars(folder: Path) -> list[tuple[str, int, float]]:
    """Of all files, in the order in which TensorBoard reads them."""
    events = [e for path in files(folder) for e in read_events(path)]
    return [(v.tag, e.step, v.simple_value) for e in events for v in e.summary.value]


def files(folder: Path) -> list[Path]:
    return sorted((folder / "tensorboard").iterdir())


@pytest.fixture
def opened(tmp_path):
    """The log, cut back to what is committed, and the event file of a process that opens them."""
    held = []

    def open_both(committed: int | None = None) -> tuple[MetricsLog, EventFile]:
        log = MetricsLog(tmp_path / "metrics.jsonl")
        if committed is not None:
            log.truncate(committed)
        events = EventFile(tmp_path)
        log.followers.append(events.write)
        held.extend((log, events))
        return log, events

    yield open_both
    for one in held:
        one.close()


def write(log: MetricsLog, steps, phase: str = "round-01/learn_target") -> None:
    for step in steps:
        log.write(step, phase, {"target/loss": 1 / step, "target/beta": 0.5})


def test_a_step_is_in_the_file_when_it_is_logged(tmp_path, opened):
    log, _ = opened()
    write(log, [1])
    assert scalars(tmp_path) == [("target/loss", 1, 1.0), ("target/beta", 1, 0.5)]
    write(log, [2])
    assert scalars(tmp_path)[2:] == [("target/loss", 2, 0.5), ("target/beta", 2, 0.5)]


def test_steps_that_were_never_committed_leave_no_trace(tmp_path, opened):
    log, _ = opened()
    write(log, [1, 2])
    committed = log.offset()
    write(log, [4])  # and the process is killed; the next one learns other steps
    (first,) = files(tmp_path)
    log, _ = opened(committed)
    write(log, [8])
    assert [step for tag, step, _ in scalars(tmp_path) if tag == "target/loss"] == [1, 2, 8]
    emptied, second = files(tmp_path)  # a TensorBoard that reads the first goes on with the second
    assert emptied == first and first.read_bytes() == b""
    version, start, *_ = read_events(second)
    assert version.file_version == "brain.Event:2"
    assert (start.step, start.session_log.status) == (0, SessionLog.START)  # and forgets all from step 0 on
    write(opened()[0], [9])
    assert [path.stat().st_size > 0 for path in files(tmp_path)] == [False, True]


def test_what_is_appended_is_what_a_later_process_begins_with(tmp_path, opened):
    log, _ = opened()
    write(log, [1, 2], "warm_start")
    write(log, [1, 2])  # counted anew: placed after the warm start's
    appended = scalars(tmp_path)
    assert [step for tag, step, _ in appended if tag == "target/loss"] == [1, 2, 3, 4]
    opened()  # a process that only looks at the run writes nothing
    assert len(files(tmp_path)) == 1
    write(opened()[0], [3])
    assert scalars(tmp_path)[: len(appended)] == appended
    assert scalars(tmp_path)[len(appended) :] == [
        ("target/loss", 5, pytest.approx(1 / 3)),
        ("target/beta", 5, 0.5),
    ]


def test_results_are_shown_once(tmp_path, opened):
    shutil.copy(Path(__file__).parents[1] / "report" / "earlier_results.json", tmp_path / "results.json")
    results = load_results(tmp_path)
    _, events = opened()
    events.show({**results, "evaluations": results["evaluations"][:1], "explorations": []})
    events.show(results)
    first = scalars(tmp_path)
    events.show(results)
    assert scalars(tmp_path) == first
    places = [(tag, step) for tag, step, _ in first]
    assert len(places) == len(set(places))
    rewards = {(f"eval/{e['agent']}/mean_reward", e["round"]) for e in results["evaluations"]}
    assert rewards <= set(places)


def test_other_files_of_the_folder_stay(tmp_path, opened):
    (tmp_path / "tensorboard" / "plugins").mkdir(parents=True)
    write(opened()[0], [1])
    assert (tmp_path / "tensorboard" / "plugins").is_dir()
