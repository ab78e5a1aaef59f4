"""Sweeps over losses and seeds: which runs they make, what the runs share, and what the table says."""

import json
import math
import os
import signal
import sys
from pathlib import Path

import pytest

from coevo_jax.coevolution import coevolve
from coevo_jax.commands.sweep import main
from coevo_jax.config.reading import load_config
from coevo_jax.config.strict import ConfigError
from coevo_jax.learning.loss_table import loss_entries, loss_markdown
from coevo_jax.learning.preference_losses import PREFERENCE_LOSSES
from coevo_jax.report.sweep_table import LEARNED
from coevo_jax.run_folder.manifest import read_manifest
from coevo_jax.run_folder.metrics import read_metrics
from coevo_jax.run_folder.results import load_results
from coevo_jax.run_folder.run import create_run
from coevo_jax.sweep import parse_loss, plan_sweep
from coevo_jax.training import optimize
from coevo_jax.training.optimize import take_step
from tests.measured import curve, results
from tests.tiny import tiny_config, write_config

pytestmark = pytest.mark.usefixtures("letters")

ETO = [
    "recipe=eto",
    "warm_start.epochs=3",
    "model.num_layers=1",
]

BROKEN_LOSS = """\
def broken(policy_chosen, policy_rejected, reference_chosen, reference_rejected, *, beta, chosen_tokens):
    return (policy_chosen - policy_rejected) * (1e38 * (chosen_tokens - 1)) ** 2  # infinite for real pairs
"""


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A folder with a finished sweep of two losses."""
    folder = tmp_path_factory.mktemp("swept")
    main(command(folder, "--losses", "sigmoid", "ipo"))
    return folder


def command(folder: Path, *arguments: str) -> list[str]:
    config = write_config(folder)
    tables = [str(folder / "table.md"), str(folder / "table.json")]
    return [str(config), f"runs_dir={folder / 'runs'}", *ETO, *arguments, "--table", *tables]


@pytest.mark.slow
def test_runs_have_telling_names_and_share_the_warm_start(swept):
    runs = swept / "runs"
    assert sorted(path.name for path in runs.iterdir()) == [
        "tiny-target-ipo-seed0",
        "tiny-target-sigmoid-seed0",
    ]
    first, second = runs / "tiny-target-sigmoid-seed0", runs / "tiny-target-ipo-seed0"
    forked = json.loads((second / "environment.json").read_text())["forked"]
    assert forked["from"] == str(first)
    assert forked["phases"] == [
        "prepare",
        "warm_start",
        "round-00/evaluate_target",
        "round-01/explore_target",
    ]
    assert "forked" not in json.loads((first / "environment.json").read_text())
    count = len(forked["phases"])
    assert read_manifest(first).done[:count] == read_manifest(second).done[:count]
    assert load_results(first)["config"]["agents"]["target"]["loss"] == "sigmoid"
    assert load_results(second)["config"]["agents"]["target"]["loss"] == "ipo"


@pytest.mark.slow
def test_a_forked_run_ends_in_the_numbers_of_a_whole_one(swept, tmp_path):
    forked = swept / "runs" / "tiny-target-ipo-seed0"
    config = load_config(forked / "config.yaml", [f"runs_dir={tmp_path}"])
    run = create_run(config)
    coevolve(run)
    run.close()
    assert results(run.folder) == results(forked)
    assert curve(run.folder) == curve(forked)


@pytest.mark.slow
def test_the_table_says_what_the_runs_measured(swept):
    record = json.loads((swept / "table.json").read_text())
    assert (
        record["command"].startswith("python -m launch.sweep ")
        and "--losses sigmoid ipo" in record["command"]
    )
    text = (swept / "table.md").read_text()
    assert text.startswith(f"`{record['command']}`")
    header, _, *rows = [line for line in text.splitlines() if line.startswith("|")]
    names = [name.strip() for name in header.strip("|").split("|")]
    assert [row.split("|")[1].strip() for row in rows] == ["sigmoid", "ipo"]
    for row, run in zip(rows, record["runs"], strict=True):
        cells = dict(zip(names, (cell.strip() for cell in row.strip("|").split("|")), strict=True))
        last = load_results(run["folder"])["evaluations"][-1]
        assert (
            cells["reward"] == f"{last['mean_reward']:.3f}"
            and cells["success"] == f"{last['success_rate']:.3f}"
        )
        assert cells["seeds"] == "1" and cells["diverged"] == "0"
        values = [
            line["values"]
            for line in read_metrics(Path(run["folder"]) / "metrics.jsonl")
            if line["phase"] == "round-01/learn_target" and "target/loss" in line["values"]
        ]
        last_pass = values[len(values) // 2 :]  # of two epochs
        pairs = sum(v["target/pairs"] for v in last_pass)
        for name, key in LEARNED.items():
            mean = sum(v[f"target/{key}"] * v["target/pairs"] for v in last_pass) / pairs
            assert cells[name] == f"{mean:.3f}"
    assert "Final mean reward, sigmoid minus ipo" in text


@pytest.mark.slow
def test_a_finished_run_is_reused_and_a_diverged_one_is_shown(swept, tmp_path, monkeypatch, capsys):
    (tmp_path / "broken_losses.py").write_text(BROKEN_LOSS)
    monkeypatch.syspath_prepend(tmp_path)
    manifest = swept / "runs" / "tiny-target-sigmoid-seed0" / "manifest.json"
    before = manifest.read_bytes()
    main(command(swept, "--losses", "broken_losses:broken", "sigmoid"))
    sys.modules.pop("broken_losses")
    assert manifest.read_bytes() == before
    shown = capsys.readouterr().out
    assert "diverged: round-01/learn_target, step 1 (round 1, step " in shown and ": loss is nan" in shown
    assert "reused: mean reward" in shown
    rows = [line for line in (swept / "table.md").read_text().splitlines() if line.startswith("|")]
    assert rows[2].startswith("| broken_losses:broken | 0 | – |") and "1 (seed 0)" in rows[2]
    assert rows[3].startswith("| sigmoid | 1 | 0.")
    record = json.loads((swept / "table.json").read_text())
    assert [bool(run["diverged"]) for run in record["runs"]] == [True, False]
    done = {
        phase.name for phase in read_manifest(swept / "runs" / "tiny-target-broken_losses.broken-seed0").done
    }
    assert "round-01/explore_target" in done and "round-01/learn_target" not in done


@pytest.mark.slow
def test_sigterm_ends_a_sweep_where_it_can_commit_and_the_same_command_goes_on(swept, monkeypatch, capsys):
    def asked(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        return take_step(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(optimize, "take_step", asked)
        with pytest.raises(SystemExit) as ended:
            main(command(swept, "--losses", "sigmoid", "hinge"))
    assert ended.value.code == 128 + signal.SIGTERM
    assert "stopped by SIGTERM; what is done is committed: the same command" in capsys.readouterr().err
    folder = swept / "runs" / "tiny-target-hinge-seed0"
    done = [phase.name for phase in read_manifest(folder).done]
    assert "round-01/explore_target" in done and "round-01/learn_target" not in done
    assert (swept / "table.md").read_text().count("| sigmoid |") == 1  # what had run stands in the table
    main(command(swept, "--losses", "sigmoid", "hinge"))
    shown = capsys.readouterr().out
    assert "reused: mean reward" in shown and "resumed: mean reward" in shown


def plan(folder: Path, *overrides: str, agent="target", losses=("sigmoid",), betas=(), seeds=(0,)):
    base = tiny_config(folder, *overrides)
    return plan_sweep(base, agent=agent, losses=losses, betas=betas, seeds=seeds)


def test_the_product_of_losses_betas_and_seeds(tmp_path):
    mixture = "sigmoid=0.8,sft=0.2"
    options = "agents.target.loss_options={sft: {average: sum}}"
    cells = plan(tmp_path, options, agent="all", losses=("ipo", mixture), betas=(0.1, 2), seeds=(3, 4, 3))
    assert [(cell.loss, cell.beta, cell.seed) for cell in cells] == [
        (loss, beta, seed) for seed in (3, 4) for loss in ("ipo", mixture) for beta in (0.1, 2)
    ]
    names = [cell.config.name for cell in cells]
    assert len(set(names)) == 8
    assert names[0] == "tiny-all-ipo-beta0.1-seed3" and names[-1] == "tiny-all-sigmoid0.8+sft0.2-beta2-seed4"
    last = cells[-1].config
    assert last.seed == 4 and last.method == f"{mixture}, beta 2"
    target, failure = last.agents["target"], last.agents["failure"]
    assert target.loss == failure.loss == {"sigmoid": 0.8, "sft": 0.2}
    assert target.beta == (2,) and target.loss_options == {"sft": {"average": "sum"}}
    assert cells[0].config.agents["target"].loss_options == {}
    (alone,) = plan(tmp_path, "agents.failure.beta=[0.3]", agent="failure", losses=("ipo",))
    assert alone.config.agents["failure"].loss == "ipo" and alone.config.agents["target"].loss == "sigmoid"
    assert alone.config.agents["failure"].beta == (0.3,)  # without --betas the config's own
    assert not (tmp_path / "runs").exists()


REFUSED = {
    "a loss": ({"losses": ("sigmoyd",)}, r"target\.loss: .*did you mean 'sigmoid'"),
    "a weight": ({"losses": ("sigmoid=x",)}, "found 'sigmoid=x', expected NAME=WEIGHT"),
    "a weight of 0": ({"losses": ("sigmoid=0,ipo=1",)}, "weights above 0"),
    "a loss named twice": ({"losses": ("ipo=0.5,ipo=0.5",)}, "names a loss twice"),
    "a beta": ({"betas": (0.1, 0.0)}, r"--betas: found \[0\.1, 0\.0\]"),
    "a beta that is no number": ({"betas": (math.nan,)}, r"--betas: found \[nan\]"),
    "a seed": ({"seeds": (-1,)}, r"--seeds: found \[-1\]"),
}
REFUSED_BASE = {
    "no rounds": (["rounds=0"], "target", "rounds is 0"),
    "no such agent": (ETO, "failure", "no such agent learns .valid: target, all"),
    "no pairs": (["recipe=rft"], "target", "the target agent learns from no pairs"),
    "a kind's own loss": (
        ["recipe.learn_target.expert_target.loss=ipo"],
        "target",
        "loss of expert_target is 'ipo'",
    ),
    "options of no loss": (
        ["agents.target.loss=simpo", "agents.target.loss_options={simpo: {gamma: 1}}"],
        "target",
        r"target\.loss_options\.simpo: no loss of the sweep \(sigmoid\)",
    ),
    "the environment": (["env.name=nowhere"], "target", r"env\.name"),
}


@pytest.mark.parametrize("case", sorted(REFUSED))
def test_a_sweep_that_cannot_be_is_refused_before_it_begins(case, tmp_path):
    values, words = REFUSED[case]
    with pytest.raises(ConfigError, match=words):
        plan(tmp_path, **values)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("case", sorted(REFUSED_BASE))
def test_a_config_with_nothing_to_sweep_is_refused(case, tmp_path):
    overrides, agent, words = REFUSED_BASE[case]
    with pytest.raises(ConfigError, match=words):
        plan(tmp_path, *overrides, agent=agent)


def test_a_budget_is_resolved_before_a_sweep_begins(tmp_path):
    budget = f"budget={{run: {tmp_path / 'gone'}, match: [pairs]}}"
    with pytest.raises(ConfigError, match=r"budget\.run: .*gone: the folder does not exist"):
        main(command(tmp_path, budget, "--losses", "sigmoid"))
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_folder_of_another_config_is_refused(swept):
    with pytest.raises(ConfigError, match=r"seed0: holds a run of another config \(rounds: found 1, .* 2\)"):
        plan(swept, *ETO, "rounds=2")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "give a config file and --losses"),
        (["tiny.yaml"], "give a config file and --losses"),
        (
            ["tiny.yaml", "--losses", "ipo", "--table", "table.txt"],
            "expected a name that ends in .md or .json",
        ),
        (
            ["tiny.yaml", "--losses", "ipo", "--table", "nowhere/table.md"],
            "the folder nowhere does not exist",
        ),
    ],
)
def test_wrong_arguments_are_named(arguments, words):
    with pytest.raises(ConfigError, match=words):
        main(arguments)


def test_losses_on_the_command_line():
    assert parse_loss("ipo") == "ipo" and parse_loss("a.b:c") == "a.b:c"
    assert parse_loss("sigmoid=0.8, a.b:c=0.2") == {"sigmoid": 0.8, "a.b:c": 0.2}


def test_every_loss_stands_in_the_table_with_its_words_paper_and_options():
    entries = {entry.name: entry for entry in loss_entries()}
    assert list(entries) == list(PREFERENCE_LOSSES)
    for name, entry in entries.items():
        assert entry.words.endswith(".") and "arXiv" not in entry.words, name
        assert entry.papers or name == "sft", name
    assert entries["simpo"].options == (("gamma", 0.5), ("label_smoothing", 0.0))
    assert entries["orpo"].papers == (("2403.07691", "eq. 4 to 7"),)
    assert entries["aot"].notes == ("coupled",) and "no reference" in entries["cpo"].notes
    text = loss_markdown()
    assert "[2305.18290](https://arxiv.org/abs/2305.18290), eq. 7" in text and "`average` (true)" in text


def test_the_list_names_every_loss(capsys):
    main(["--list"])
    shown = capsys.readouterr().out
    assert all(name in shown for name in PREFERENCE_LOSSES)
