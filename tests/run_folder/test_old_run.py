"""A folder from before recipes is read by every command and never resumed; later versions only add."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from coevo_jax.coevolution import coevolve
from coevo_jax.commands import report, train
from coevo_jax.config.reading import load_config, to_yaml
from coevo_jax.config.strict import ConfigError
from coevo_jax.recipe import schedule
from coevo_jax.run_folder.fork import can_fork, fork_run
from coevo_jax.run_folder.manifest import MANIFEST, SELF, SINCE_SELF, read_manifest
from coevo_jax.run_folder.results import load_results
from coevo_jax.run_folder.run import create_run, open_run
from coevo_jax.stored.evaluate import evaluate_stored
from coevo_jax.stored.export import export_agent
from tests.old_run import unpack
from tests.tiny import tiny_config

pytestmark = pytest.mark.usefixtures("letters")


@pytest.fixture
def old_run(tmp_path) -> Path:
    return unpack(tmp_path)


def edit(folder: Path, change: Any) -> None:
    """Rewrite a manifest."""
    content = json.loads((folder / MANIFEST).read_text())
    change(content)
    for name in (SELF, *SINCE_SELF):  # earlier versions wrote none
        content.pop(name, None)
    (folder / MANIFEST).write_text(json.dumps(content))


def interrupt(folder: Path) -> None:
    """Put an old run back to the end of its first explorations."""

    def change(content: dict[str, Any]) -> None:
        names = [record["name"] for record in content["done"]]
        content["done"] = content["done"][: 1 + names.index("round-01/explore_failure")]
        content["checkpoint"] = content["done"][1]["records"]["checkpoint"]
        content["checkpoint_files"] = {}

    edit(folder, change)


def test_its_identity_is_that_of_its_configs_bytes(old_run):
    digest = hashlib.sha256((old_run / "config.yaml").read_bytes()).hexdigest()
    manifest = read_manifest(old_run)
    assert (manifest.format, manifest.config_sha256) == (1, digest)


def test_its_config_schedules_the_phases_that_it_did(old_run):
    config = load_config(old_run / "config.yaml")
    done = [record.name for record in read_manifest(old_run).done]
    assert done == ["prepare", *(phase.name for phase in schedule(config))]


@pytest.mark.parametrize("prepared", [lambda folder: None, interrupt], ids=["finished", "interrupted"])
def test_it_is_not_resumed_and_says_why_and_what_to_do(prepared, old_run):
    prepared(old_run)
    before = {path: path.read_bytes() for path in old_run.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError) as error:
        train.main(["--resume", str(old_run)])
    assert str(error.value).startswith(
        f"{old_run}: cannot be resumed: it was begun before recipes (format 1)"
    )
    assert f"--fork {old_run}" in str(error.value)
    assert before == {path: path.read_bytes() for path in old_run.rglob("*") if path.is_file()}


def test_the_same_config_again_says_so_too(old_run):
    config = load_config(old_run / "config.yaml", [f"runs_dir={old_run.parent}"])
    with pytest.raises(ConfigError, match="holds a run that cannot go on: it was begun before recipes"):
        create_run(config)


def test_it_is_reported(old_run):
    report.main([str(old_run)])
    assert "hard negatives" in (old_run / "report.html").read_text().lower()


@pytest.mark.slow
def test_it_is_evaluated(old_run):
    for agent in ("target", "failure"):
        summary, _ = evaluate_stored(
            old_run, agent=agent, split="dev", tasks="0:2", temperature=0.0, samples=1
        )
        assert summary["tasks"] == 2


def test_it_is_exported(old_run, tmp_path):
    out = export_agent(old_run, tmp_path / "out", agent="failure", form="merged")
    assert (out / "model.safetensors").is_file()


@pytest.mark.parametrize("prepared", [lambda folder: None, interrupt], ids=["finished", "interrupted"])
def test_it_is_forked_from(prepared, old_run):
    prepared(old_run)
    config = load_config(old_run / "config.yaml", [f"runs_dir={old_run.parent}", "name=fork"])
    assert can_fork(old_run, config)
    run = fork_run(old_run, config)
    try:
        assert [record.name for record in run.manifest.done] == [
            "prepare",
            "warm_start",
            "round-00/evaluate_target",
            "round-01/explore_target",
            "round-01/explore_failure",
        ]
    finally:
        run.close()
    assert read_manifest(run.folder).format == 2
    assert "format: 2" in (run.folder / "config.yaml").read_text()
    open_run(run.folder).close()


@pytest.mark.slow
def test_what_is_forked_from_it_plays_on_to_the_end(old_run):
    config = load_config(old_run / "config.yaml", [f"runs_dir={old_run.parent}", "name=fork"])
    run = fork_run(old_run, config)
    try:
        coevolve(run)
    finally:
        run.close()
    ours, theirs = load_results(run.folder), load_results(old_run)
    assert ours["explorations"][:2] == theirs["explorations"][:2]
    assert [one["count"] for one in ours["pairs"]][:1] == [one["count"] for one in theirs["pairs"]][:1]


def test_a_later_version_may_add_fields_to_every_record(tmp_path):
    run = create_run(tiny_config(tmp_path))
    run.close()
    known = read_manifest(run.folder)

    def add(content: dict[str, Any]) -> None:
        content["running"] = {"name": "prepare", "position": 0, "flavour": [1, 2]}
        content["done"] = [{"name": "warm_start", "records": {"new": {}}, "mood": None}]
        content["colour"] = {"deep": {"er": 1}}

    edit(run.folder, add)
    manifest = read_manifest(run.folder)
    assert manifest.config_sha256 == known.config_sha256
    assert manifest.running is not None and manifest.running.name == "prepare"
    assert [(record.name, record.records) for record in manifest.done] == [("warm_start", {"new": {}})]


def test_a_run_goes_on_where_an_option_with_a_default_was_not_there_yet(tmp_path):
    """Its config.yaml is that of a version before the option; its bytes are what the run is known by."""
    run = create_run(tiny_config(tmp_path))
    run.close()
    path = run.folder / "config.yaml"
    lines = path.read_text().splitlines(keepends=True)
    shorter = "".join(line for line in lines if "min_p:" not in line and "turn_discount:" not in line)
    assert shorter.count("\n") == len(lines) - 3
    path.write_text(shorter)
    edit(
        run.folder, lambda content: content.update(config_sha256=hashlib.sha256(shorter.encode()).hexdigest())
    )
    again = open_run(run.folder)
    assert again.config == run.config
    assert to_yaml(again.config) != shorter
    again.close()


def test_a_config_that_was_edited_is_still_refused(tmp_path):
    run = create_run(tiny_config(tmp_path))
    run.close()
    path = run.folder / "config.yaml"
    path.write_text(path.read_text().replace("rounds: 1", "rounds: 2"))
    with pytest.raises(ConfigError, match="differs from the config this run was started with"):
        open_run(run.folder)


@pytest.mark.parametrize("number", [0, 3, "2", None])
def test_a_manifest_of_another_format_is_refused(number, tmp_path):
    run = create_run(tiny_config(tmp_path))
    run.close()
    edit(run.folder, lambda content: content.update(format=number))
    with pytest.raises(ConfigError, match=r"format: found .*, expected at most 2"):
        open_run(run.folder)
