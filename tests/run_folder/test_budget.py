"""Controls at equal cost: totals taken from a run, and met in pairs, in explored and in learned tokens."""

import json
from pathlib import Path

import pytest

from coevo_jax.coevolution import coevolve
from coevo_jax.commands.actions.train import open_or_create
from coevo_jax.commands.train import parse
from coevo_jax.config.options import Config
from coevo_jax.config.strict import ConfigError
from coevo_jax.data.parquet import read_trajectories
from coevo_jax.hosts.processes import Processes
from coevo_jax.recipe import find_phase
from coevo_jax.run_folder.budget import budget_words, resolve_budget
from coevo_jax.run_folder.collection import collection_files, read_collection
from coevo_jax.run_folder.folder import read_config
from coevo_jax.run_folder.fork import fork_run
from coevo_jax.run_folder.run import Run, create_run, open_run
from tests.measured import curve, results
from tests.tiny import coevolve_through_kills, kill_at_commits, tiny_config, write_config

pytestmark = pytest.mark.usefixtures("letters")

EPOCHS = "agents.target.epochs=1"
SMALL = (
    "rounds=2",
    "model.num_layers=1",
    "warm_start={tasks: '0:24', epochs: 4, learning_rate: 2e-2}",
    "explore={tasks: ['40:50'], samples: 1, block_tasks: 4}",
    "evaluate={split: dev, tasks: ':4'}",
    EPOCHS,
)
ALONE = ("recipe=eto",)
PAIRS = (*SMALL, *ALONE, "explore.samples=8", "agents.target.max_pairs_per_kind=8", "name=pairs")
COMPUTE = (*(one for one in PAIRS if one != EPOCHS), "name=compute")  # its budget says how long it learns
KINDS = {"pairs": PAIRS, "compute": COMPUTE}
MATCH = {"pairs": "[pairs]", "compute": "[explored_tokens, learned_tokens]"}


def finished(run: Run) -> Run:
    coevolve(run)
    run.close()
    return run


@pytest.fixture(scope="module")
def source(letters, tmp_path_factory) -> Run:
    """A run of co-evolution."""
    return finished(create_run(tiny_config(tmp_path_factory.mktemp("source"), *SMALL)))


def control(source: Run, folder: Path, kind: str, *overrides: str) -> Config:
    budget = f"budget={{run: {source.folder}, match: {MATCH[kind]}}}"
    return resolve_budget(tiny_config(folder, *KINDS[kind], budget, *overrides))


def plan_of(run: Run, number: int, agent: str) -> dict:
    return json.loads((run.folder / "plans" / f"round-{number:02d}-{agent}.json").read_text())


def step_tokens(plan: dict) -> list[int]:
    """Tokens of the steps in the order in which they are taken."""
    taken = [number for epoch in plan["order"] for number in epoch][: plan["steps_taken"]]
    return [sum(micro["tokens"] for micro in plan["steps"][number]) for number in taken]


def written(run: Run, number: int, name: str) -> list[int]:
    """Tokens that the agents wrote, shard by shard."""
    shards = sorted((run.folder / "trajectories" / f"round-{number:02d}").glob(f"{name}-*-of-*.parquet"))
    return [sum(int(t.agent_mask.sum()) for t in read_trajectories([shard])) for shard in shards]


def lines(run: Run, number: int) -> list[dict]:
    text = (run.folder / "pairs" / f"round-{number:02d}-target.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.slow
def test_totals_are_those_of_the_runs_files(source, tmp_path):
    budget = control(source, tmp_path, "compute").budget
    assert (budget.run, budget.match, budget.pairs) == (None, (), None)
    names = ("target", "failure", "hard_negatives")
    explored = [sum(sum(written(source, number, name)) for name in names) for number in (1, 2)]
    assert budget.explored_tokens == tuple(explored)
    learned = [
        sum(sum(step_tokens(plan_of(source, number, agent))) for agent in ("failure", "target"))
        for number in (1, 2)
    ]
    assert budget.learned_tokens == tuple(learned)
    pairs = control(source, tmp_path, "pairs").budget
    assert pairs.pairs == tuple(len(lines(source, number)) for number in (1, 2))
    assert (pairs.explored_tokens, pairs.learned_tokens) == (None, None)


def test_without_a_run_a_config_stays_as_it_is(tmp_path):
    config = tiny_config(tmp_path, *PAIRS, "budget.pairs=[3, 4]")
    assert resolve_budget(config) is config


@pytest.mark.slow
def test_a_command_stores_numbers_and_goes_on_without_the_run_they_are_from(source, tmp_path):
    budget = f"budget={{run: {source.folder}, match: [pairs]}}"
    command = [str(write_config(tmp_path)), f"runs_dir={tmp_path / 'runs'}", *PAIRS, budget]
    with Processes() as processes:
        run = open_or_create(parse(command), processes)
        run.close()
        stored = read_config(run.folder)
        assert stored == run.config == control(source, tmp_path, "pairs")
        assert stored.budget.run is None and stored.budget.pairs is not None
        again = open_or_create(parse(["--auto-resume", *command]), processes)
        again.close()
        again = open_or_create(parse(["--resume", str(run.folder)]), processes)
        again.close()
        assert again.config == stored


@pytest.mark.slow
def test_as_many_pairs_are_learned_from_as_the_run_had(source, tmp_path):
    run = finished(fork_run(source.folder, control(source, tmp_path, "pairs")))
    for number in (1, 2):
        asked = len(lines(source, number))
        found = lines(run, number)
        record = run.manifest.record(f"round-0{number}/learn_target")
        assert record is not None
        assert record.records["budget"] == {"pairs": {"asked": asked, "reached": asked}}
        assert len(found) == asked and record.records["dropped_pairs"] == 0
        plan = plan_of(run, number, "target")
        assert sorted(p["pair"] for step in plan["steps"] for micro in step for p in micro["pairs"]) == list(
            range(asked)
        )
        assert plan["steps_taken"] == len(plan["steps"])  # of one epoch
        per_task = [sum(pair["task_id"] == task for pair in found) for task in {p["task_id"] for p in found}]
        assert max(per_task) <= 8


@pytest.mark.slow
def test_too_few_pairs_are_recorded_as_too_few(source, tmp_path, capsys):
    config = tiny_config(tmp_path, *PAIRS, "rounds=1", "budget.pairs=[5000]")
    run = finished(fork_run(source.folder, config))
    record = run.manifest.record("round-01/learn_target")
    assert record is not None
    count = len(lines(run, 1))
    assert record.records["budget"] == {"pairs": {"asked": 5000, "reached": count}} and 0 < count < 5000
    assert "of 5,000 pairs asked for, too few" in " ".join(capsys.readouterr().out.split())


@pytest.fixture(scope="module")
def compute(source, tmp_path_factory) -> Run:
    """A control with the tokens of the run, which nobody stopped."""
    return finished(fork_run(source.folder, control(source, tmp_path_factory.mktemp("compute"), "compute")))


@pytest.mark.slow
def test_exploration_ends_with_the_block_that_reaches_the_total(source, compute):
    for number in (1, 2):
        asked = compute.config.budget.explored_tokens[number - 1]
        phase = find_phase(compute.config, f"round-0{number}/explore_target")
        record = compute.manifest.record(phase.name)
        assert record is not None
        tokens = written(compute, number, "target")
        assert len(tokens) == len(collection_files(compute.manifest, phase)) == 8 * 3
        played = record.position
        assert sum(tokens[: played - 1]) < asked <= sum(tokens[:played]) == sum(tokens)
        assert record.records["budget"] == {"explored_tokens": {"asked": asked, "reached": sum(tokens)}}
        assert record.records["agent_tokens"] == sum(tokens)
        collection = read_collection(compute.folder, compute.manifest, phase)
        names = [(t.sample, int(t.task_id.partition("/")[2])) for t in collection]
        assert names == sorted(names) and len(names) == len(set(names)) == record.records["summary"]["n"]
        per_task = [sum(task == number for _, task in names) for number in range(40, 50)]
        assert max(per_task) - min(per_task) <= 1 and sum(per_task) < 80


@pytest.mark.slow
def test_learning_ends_with_the_step_that_reaches_the_total(source, compute):
    for number in (1, 2):
        asked = compute.config.budget.learned_tokens[number - 1]
        record = compute.manifest.record(f"round-0{number}/learn_target")
        assert record is not None
        plan = plan_of(compute, number, "target")
        tokens = step_tokens(plan)
        assert sum(tokens[:-1]) < asked <= sum(tokens)
        assert record.records["budget"] == {"learned_tokens": {"asked": asked, "reached": sum(tokens)}}
        assert record.records["learned_tokens"] == sum(tokens)
        assert plan["steps_taken"] == len(tokens) == record.position
        assert len(plan["order"]) == plan["epochs"] == -(-len(tokens) // len(plan["steps"]))
        steps = [
            values
            for _, _, values in curve(compute.folder, f"round-0{number}/learn_target")
            if "target/loss" in values
        ]
        assert len(steps) == len(tokens)
        rates = [values["target/learning_rate"] for values in steps]
        warm = -(-len(tokens) // 10)  # a tenth of the steps that are taken, not of an epoch's
        assert rates[warm - 1 :] == [rates[-1]] * (len(tokens) - warm + 1)
        assert warm == 1 or rates[warm - 2] < rates[-1]


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_at_every_fifth_commit_it_ends_in_the_same_numbers(
    source, compute, tmp_path, monkeypatch, when
):
    run = fork_run(source.folder, control(source, tmp_path, "compute"))
    kill_at_commits(monkeypatch, when, first=3, every=5)
    run, kills = coevolve_through_kills(run)
    assert kills >= 4  # of blocks explored, most of them
    assert results(run.folder) == results(compute.folder)
    assert curve(run.folder) == curve(compute.folder)
    for name in ("explore_target", "learn_target"):
        for number in (1, 2):
            ours, theirs = (r.manifest.record(f"round-0{number}/{name}") for r in (run, compute))
            assert ours is not None and theirs is not None
            assert (ours.records["budget"], ours.position) == (theirs.records["budget"], theirs.position)
            assert ours.files == theirs.files
    run.close()


@pytest.mark.slow
def test_a_run_that_gives_no_totals_is_refused(source, tmp_path):
    def refused(*overrides: str) -> str:
        with pytest.raises(ConfigError) as caught:
            resolve_budget(tiny_config(tmp_path, *COMPUTE, *overrides))
        return str(caught.value)

    gone = tmp_path / "gone"
    said = refused(f"budget={{run: {gone}, match: [pairs]}}")
    assert said == f"budget.run: {gone}: the folder does not exist; expected the folder of a run"
    told = f"budget={{run: {source.folder}, match: [pairs, learned_tokens]}}"
    said = refused(told, "rounds=1")
    assert said == f"budget.run: {source.folder}: found 2 rounds, expected 1 as in this config"
    unfinished = create_run(tiny_config(tmp_path, *SMALL, "name=unfinished"))
    unfinished.close()
    said = refused(f"budget={{run: {unfinished.folder}, match: [pairs]}}")
    assert f"{unfinished.folder}: found no warm_start, expected a finished run" in said


@pytest.mark.slow
def test_a_run_of_another_version_or_without_a_total_is_refused(source, tmp_path, monkeypatch):
    import coevo_jax.run_folder.budget as budget_module

    def changed(name: str, **records):
        def read(folder: Path):
            manifest = open_manifest(folder)
            record = manifest.record(name)
            assert record is not None
            record.records.update({key: value for key, value in records.items() if value is not None})
            for key in [key for key, value in records.items() if value is None]:
                del record.records[key]
            return manifest

        open_manifest = source_manifest
        monkeypatch.setattr(budget_module, "read_manifest", read)

    source_manifest = budget_module.read_manifest
    changed("round-01/explore_failure", agent_tokens=None)
    with pytest.raises(ConfigError, match="found no agent_tokens in the record of round-01/explore_failure"):
        control(source, tmp_path, "compute")
    changed("round-02/learn_target", pairs=[], dropped_pairs=0)
    with pytest.raises(ConfigError, match="found 0 pairs in round 2, expected 1 or more"):
        control(source, tmp_path, "pairs")


def test_words_say_what_was_asked_for():
    assert budget_words({}) == ""
    both = {"pairs": {"asked": 1200, "reached": 90}, "learned_tokens": {"asked": 5, "reached": 7}}
    said = "90 of 1,200 pairs asked for, too few; 7 of 5 learned tokens asked for"
    assert budget_words(both) == said


def test_a_stored_run_opens_without_the_one_its_numbers_are_from(tmp_path):
    run = create_run(tiny_config(tmp_path, *PAIRS, "budget.pairs=[3, 4]"))
    run.close()
    again = open_run(run.folder)
    assert again.config.budget.pairs == (3, 4)
    again.close()
