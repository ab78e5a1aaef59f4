"""A run whose config must change, or which was damaged, goes on as another one: by the very words it says."""

import hashlib
import json
import shlex
import shutil
from dataclasses import replace

import numpy as np
import pytest
from etils import epath

from coevo_jax.coevolution import coevolve
from coevo_jax.commands.train import main
from coevo_jax.config.reading import to_yaml
from coevo_jax.config.strict import ConfigError
from coevo_jax.files import write_whole
from coevo_jax.run_folder.digests import folder_digests
from coevo_jax.run_folder.fork import shared_phases
from coevo_jax.run_folder.intact import fork_command, newest_intact, standings
from coevo_jax.run_folder.manifest import Manifest, PhaseRecord, read_manifest, write_manifest
from coevo_jax.run_folder.run import create_run, open_run
from tests.measured import curve, results
from tests.run_folder.test_damage import flip
from tests.tiny import Killed, kill_at_commits, tiny_config

ETO = ("warm_start.epochs=3", "model.num_layers=1", "recipe=eto")
NAMES = ("prepare", "warm_start", "round-00/evaluate_target", "round-01/explore_target")
LEARN = "round-01/learn_target"


def phases(tmp_path, *own, theirs=(), learned=True):
    source = tiny_config(tmp_path, "rounds=3", *theirs)
    return shared_phases(source, tiny_config(tmp_path, "rounds=3", *own), learned=learned)


@pytest.mark.parametrize(
    ("change", "first_other"),
    [
        ("agents.target.epochs=5", "round-01/learn_target"),
        ("agents.failure.epochs=5", "round-01/learn_failure"),
        ("agents.target.learning_rate=[1e-4, 1e-4, 1e-5]", "round-03/learn_target"),
        ("agents.failure.beta=[0.1, 0.2, 0.5]", "round-02/learn_failure"),
        ("budget.pairs=[9, 9, 9]", "round-01/learn_target"),
        ("explore.samples=3", "round-01/explore_target"),
        ("optimizer.nonfinite=skip", None),
        ("checkpoint.every_steps=7", None),
        ("name=other", None),
        ("rounds=2", None),
    ],
)
def test_all_that_both_configs_do_alike_is_shared(tmp_path, change, first_other):
    alike = phases(tmp_path)
    assert alike[-1] == "round-03/evaluate_failure"
    found = phases(tmp_path, change)
    assert found == alike[: len(found)] == phases(tmp_path, theirs=[change])
    if change == "rounds=2":
        assert found[-1] == "round-02/evaluate_failure"
    else:
        assert first_other == (alike[len(found)] if len(found) < len(alike) else None)
    first = phases(tmp_path, change, learned=False)  # what methods are compared from
    assert first == found[: len(first)] and not any("learn" in name for name in first)


@pytest.fixture
def stored(tmp_path):
    """The record of a run that was learning, with its checkpoints; it began with 0, and stands at 3."""
    folder = tmp_path / "stored"
    config = tiny_config(tmp_path, *ETO)
    write_whole(folder / "config.yaml", to_yaml(config))
    for number in (0, 2, 3):
        write_whole(folder / "checkpoints" / str(number) / "target" / "a", str(number))
    done = [PhaseRecord(name=name, records={"checkpoint": 0}) for name in NAMES]
    write_whole(folder / "pairs" / "p", "pairs")
    running = PhaseRecord(name=LEARN, position=4, records={"began_with": 0}, files={"pairs/p": _sha("pairs")})
    digests = {str(n): folder_digests(epath.Path(folder / "checkpoints" / str(n))) for n in (0, 2, 3)}
    manifest = Manifest(
        config_sha256="", done=tuple(done), running=running, checkpoint=3, checkpoint_digests=digests
    )
    write_manifest(folder, manifest)
    return folder, manifest, config


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_the_newest_intact_state_is_found_whatever_was_damaged_behind_it(stored):
    folder, manifest, config = stored
    names = [*NAMES, LEARN]

    def newest(names=names, learned=True):
        return newest_intact(folder, manifest, names, config, learned=learned)

    found, damaged = newest()
    assert (found.running, found.checkpoint, damaged) == (manifest.running, 3, None)
    found, damaged = newest(NAMES)  # a learning of other options
    assert (found.done, found.running, found.checkpoint, damaged) == (manifest.done, None, 0, None)
    assert newest(learned=False)[0] == found
    (folder / "pairs" / "p").write_text("other")
    found, damaged = newest()
    assert found.done == manifest.done and "pairs/p: changed since it was committed" in damaged
    (folder / "pairs" / "p").write_text("pairs")
    flip(folder / "checkpoints" / "3" / "target" / "a")
    found, damaged = newest()
    assert (found.running, found.checkpoint) == (None, 0) and "checkpoints/3/target/a: changed" in damaged
    shutil.rmtree(folder / "checkpoints" / "0")
    with pytest.raises(ConfigError, match="checkpoints/0: missing"):
        newest()


def test_a_batch_that_stopped_a_run_is_not_taken_over_and_those_it_skipped_are(stored):
    _, manifest, _ = stored
    files = {"nonfinite/a-step-00003.parquet": "", "nonfinite/a-step-00004.parquet": "", "plans/a.json": ""}
    skipped = {"skipped_steps": [{"file": "nonfinite/a-step-00003.parquet"}]}
    running = replace(manifest.running, files=files, records=skipped)
    [found, *_] = standings(replace(manifest, running=running), [*NAMES, LEARN], learned=True)
    assert set(found.running.files) == set(files) - {"nonfinite/a-step-00004.parquet"}


def test_the_offer_has_a_name_that_is_free_and_is_quoted(tmp_path):
    config = tiny_config(tmp_path)
    folder = tmp_path / "runs" / "a run"
    (tmp_path / "runs" / "a run-2").mkdir(parents=True)
    words = shlex.split(fork_command(folder, config, "agents.target.learning_rate=[0.1, 0.01]"))
    assert words[:3] == ["python", "-m", "launch.train"]
    assert words[3:] == [
        *("--fork", str(folder), f"{folder}/config.yaml", "name=a run-3"),
        "agents.target.learning_rate=[0.1, 0.01]",
    ]
    moved = shlex.split(fork_command(tmp_path / "elsewhere" / "tiny", config))
    assert moved[-1] == f"runs_dir={tmp_path / 'elsewhere'}"


def offered(message: str) -> list[str]:
    """The arguments of the command that a message offers last."""
    _, found, words = message.rpartition("python -m launch.train ")
    assert found
    return shlex.split(words.partition("; ")[0])


@pytest.mark.slow
@pytest.mark.usefixtures("letters")
def test_what_is_offered_goes_on_from_the_newest_intact_state_in_the_same_bits(tmp_path, monkeypatch):
    whole = create_run(tiny_config(tmp_path / "whole", *ETO))
    coevolve(whole)
    whole.close()
    run = create_run(tiny_config(tmp_path, *ETO))

    def inside(manifest: Manifest) -> bool:
        return manifest.running is not None and manifest.running.name == LEARN

    with monkeypatch.context() as patch:
        kill_at_commits(patch, "after", first=2, counted=inside)
        with pytest.raises(Killed):
            coevolve(run)
    run.close()
    manifest = read_manifest(run.folder)
    assert manifest.running is not None and manifest.running.position > 0 and manifest.checkpoint is not None
    began = manifest.running.records["began_with"]
    assert str(began) in manifest.checkpoint_digests  # it stays while the phase learns

    main(offered(fork_command(run.folder, run.config)))  # from the last commit, inside the phase
    second = run.folder.parent / "tiny-2"
    forked = json.loads((second / "environment.json").read_text())["forked"]
    assert forked["phases"][-1] == LEARN
    biggest = max((run.folder / "checkpoints" / str(manifest.checkpoint)).rglob("d/*"), key=_size)
    content = bytearray(biggest.read_bytes())
    biggest.unlink()  # a link: the fork keeps its own
    content[len(content) // 2] ^= 1
    biggest.write_bytes(content)
    resumed = open_run(run.folder)
    with pytest.raises(ConfigError, match=f"{biggest}: changed since") as error:
        coevolve(resumed)
    resumed.close()
    main(offered(str(error.value)))  # from the phase's beginning
    third = run.folder.parent / "tiny-3"
    forked = json.loads((third / "environment.json").read_text())["forked"]
    assert forked["phases"][-1] == NAMES[-1] and str(biggest) in forked["left"]
    for folder in (second, third):
        assert results(folder) == results(whole.folder)
        assert curve(folder) == curve(whole.folder)
        assert np.all(read_manifest(folder).checkpoint == read_manifest(whole.folder).checkpoint)


def _size(path):
    return path.stat().st_size
