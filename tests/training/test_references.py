"""References that are refreshed on the way: what is scored, what the steps see, and resuming in between."""

from itertools import pairwise

import numpy as np
import pytest

import coevo_jax.phases.learn as learn_phase
import coevo_jax.training.optimize as optimize_module
from coevo_jax.coevolution import coevolve
from coevo_jax.config.reading import load_config
from coevo_jax.hosts.processes import Processes
from coevo_jax.phases.world import build_world
from coevo_jax.run_folder.fork import fork_run
from coevo_jax.run_folder.manifest import read_manifest
from coevo_jax.run_folder.run import create_run, open_run
from coevo_jax.training.references import References
from tests.learning.packed import one_batch
from tests.measured import curve
from tests.tiny import coevolve_through_kills, kill_at_commits, tiny_config

pytestmark = pytest.mark.usefixtures("letters")

ETO = [
    "recipe=eto",
    "agents.target.reference_every=2",
    "warm_start.epochs=3",
    "model.num_layers=1",
    "checkpoint={every_steps: 2, keep: 100}",
]
PHASE = "round-01/learn_target"


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """A finished run, the microbatches it learned from, and the references that each step saw."""
    batches, seen = [], []

    class Watched(References):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            batches.extend(arguments[2])

    def watched_step(programs, state, frozen, own, beta, rate):
        seen.append([np.asarray(batch.reference_logps) for batch in own])
        return take_step(programs, state, frozen, own, beta, rate)

    take_step = optimize_module.take_step
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learn_phase, "References", Watched)
        patch.setattr(optimize_module, "take_step", watched_step)
        run = create_run(tiny_config(tmp_path_factory.mktemp("watched"), *ETO))
        coevolve(run)
    run.close()
    learned = read_manifest(run.folder).record(PHASE)
    return run, batches, seen[-learned.position :]


@pytest.mark.slow
def test_references_are_the_scores_under_the_agent_as_it_stood(watched):
    run, batches, seen = watched
    manifest = read_manifest(run.folder)
    steps, first = manifest.record(PHASE).position, manifest.record("warm_start").records["checkpoint"]
    assert steps >= 6
    world, stored = build_world(run.config, run.folder), open_run(run.folder)
    try:
        for number in range(-(-steps // 2)):
            tree = world.learner.abstract()
            state = stored.checkpoints.restore(first + number, {"target": tree})["target"]
            expected = [np.asarray(world.score(state.params, {}, batch)) for batch in batches]
            name = f"round-01-target{f'-{number:04d}' if number else ''}.npy"
            np.testing.assert_array_equal(np.load(run.folder / "references" / name), expected)
            for position in range(2 * number, min(2 * number + 2, steps)):
                for reference in seen[position]:
                    assert any(np.array_equal(reference, one) for one in expected), position
    finally:
        stored.close()
        world.close()


@pytest.mark.slow
def test_every_refresh_is_a_committed_file_and_differs_from_the_last(watched):
    run, _, seen = watched
    files = [name for name in read_manifest(run.folder).record(PHASE).files if name.startswith("references/")]
    assert len(files) == -(-len(seen) // 2)
    scores = [np.load(run.folder / name) for name in sorted(files)]
    assert all(not np.array_equal(one, other) for one, other in pairwise(scores))


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.slow
def test_killed_between_two_refreshes_it_ends_in_the_same_bits(watched, tmp_path, monkeypatch, when):
    """Commits every 3 steps, references every 2: the run resumes inside a reference's span."""
    whole = watched[0]
    overrides = [f"runs_dir={tmp_path}", "checkpoint.every_steps=3"]
    run = fork_run(whole.folder, load_config(whole.folder / "config.yaml", overrides))
    kill_at_commits(
        monkeypatch,
        when,
        first=1,
        every=2 if when == "before" else 1,
        counted=lambda manifest: manifest.running is not None and manifest.running.name == PHASE,
    )
    run, kills = coevolve_through_kills(run)
    assert kills >= 2
    assert curve(run.folder, PHASE) == curve(whole.folder, PHASE)
    ends = []
    for one in (run, whole):
        manifest = read_manifest(one.folder)
        names = sorted(name for name in manifest.record(PHASE).files if name.startswith("references/"))
        ends.append({name: (one.folder / name).read_bytes() for name in names})
    assert ends[0] == ends[1]
    run.close()


def test_a_span_scores_once_and_resumes_from_its_file(tmp_path):
    """By hand: which positions score, and with whose parameters."""
    batch = one_batch()
    scored = []

    def score(params, batch):
        scored.append(params)
        return np.full(batch.reference_logps.shape, params, np.float32)

    def references(every=3):
        return References(
            tmp_path, "r", [batch], every=every, score=score, first=lambda: -1.0, processes=Processes()
        )

    def state(params):
        return type("State", (), {"params": params})()

    one = references()
    found = [
        float(one.batches_at(position, state(float(position)))[0].reference_logps[0]) for position in range(8)
    ]
    assert found == [-1, -1, -1, 3, 3, 3, 6, 6] and scored == [-1, 3, 6]
    assert [path.name for path in one.files()] == ["r.npy", "r-0001.npy", "r-0002.npy"]
    scored.clear()
    resumed = references()
    assert float(resumed.batches_at(4, state(4.0))[0].reference_logps[0]) == 3 and scored == []
    assert float(resumed.batches_at(6, state(6.5))[0].reference_logps[0]) == 6.5
    never = references(every=None)
    assert [float(never.batches_at(p, state(9.0))[0].reference_logps[0]) for p in (0, 5)] == [-1, -1]
