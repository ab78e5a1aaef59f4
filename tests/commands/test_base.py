"""The command that makes a base: what it writes, what it refuses, and the bases that come with the code."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from coevo_jax.commands.base import main
from coevo_jax.commands.cli import run_command
from coevo_jax.config.options import Config
from coevo_jax.config.reading import load_config
from coevo_jax.config.strict import ConfigError
from coevo_jax.data.interchange import Problems, read_conversations
from coevo_jax.envs.players import Lesson, PlayerHabits, Players
from coevo_jax.envs.registry import ENVIRONMENTS, EnvSpec
from coevo_jax.report.skills import skills_page
from coevo_jax.trajectory import Turn
from tests.letters_env import LettersOptions

ROOT = Path(__file__).resolve().parents[2]
BASES = sorted(path.parent for path in (ROOT / "bases").glob("*/base.json"))

BASE = """\
name: base-letters
rounds: 0
env: {name: letters}
tokenizer: {vocab_size: 300}
model: {hidden_size: 32, num_layers: 2, num_heads: 2, num_kv_heads: 2, head_dim: 16, intermediate_size: 64}
batch: {rows: 4, row_length: 128}
warm_start: {tasks: "0:60", data: played.jsonl, epochs: 2, learning_rate: 1e-2}
rollout: {slots: 4, max_tokens: 128, max_turn_tokens: 24, decode_block: 16}
recipe: sft
evaluate: {split: dev}
"""


class LettersHabits(PlayerHabits):
    """A player who sometimes forgets the word, and sometimes plays nothing."""

    seed: int = 0
    """Seed of the draws."""
    forget: float = 0.5
    """The word is forgotten."""
    nothing: float = 0.1
    """Nothing is played."""


def play_letters(env, task, habits, rng):
    if rng.random() < habits.nothing:
        return None
    expert = env.expert(task)
    if rng.random() >= habits.forget:
        return expert
    env.reset(task)
    result = env.step("c c c c")
    turn = Turn(response="Action: c c c c", action="c c c c", observation=result.observation)
    return replace(expert, turns=(turn,), reward=result.reward)


def letters_lesson(options: LettersOptions, habits, seed, episodes):
    return Lesson(options=options.model_copy(update={"seed": seed}), habits=habits, episodes=episodes)


PLAYERS = Players(
    habits=LettersHabits,
    stream="letters players",
    check=lambda options: None,
    lesson=letters_lesson,
    play=play_letters,
    skills=lambda prompt, turns: {"looked": turns[0].action == "look"} if turns else {},
    skill_words={"looked": "looked first"},
)


@pytest.fixture(autouse=True)
def letters(monkeypatch, tmp_path):
    spec = EnvSpec(
        options_at="tests.letters_env:LettersOptions",
        make_at="tests.letters_env:make_letters",
        players_at=f"{__name__}:PLAYERS",
    )
    monkeypatch.setitem(ENVIRONMENTS, "letters", spec)
    monkeypatch.chdir(tmp_path)


def base_config(folder: Path) -> Path:
    """A config that makes a base of the letters in seconds."""
    path = folder / "base.yaml"
    path.write_text(BASE)
    return path


def verify(folder: Path) -> None:
    """Hold the files of a base against their digests: each has one, and it is right."""
    lines = [line.split("  ") for line in (folder / "SHA256SUMS").read_text().splitlines()]
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    assert {name for _, name in lines} == set(files) - {"SHA256SUMS"}
    for digest, name in lines:
        assert hashlib.sha256(files[name].read_bytes()).hexdigest() == digest, name


@pytest.mark.slow
def test_a_base_is_made_measured_and_recorded(tmp_path, capsys):
    config, out = base_config(tmp_path), tmp_path / "bases/small"
    page = tmp_path / "page.md"
    page.write_text("Skills:\n<!-- table:small -->\n<!-- /table -->\nEnd.\n")
    words = [str(config), "--out", str(out), "--page", str(page)]
    main(words)
    verify(out)
    record = json.loads((out / "base.json").read_text())
    played = Path("played.jsonl").read_bytes()
    assert record["played_sha256"] == hashlib.sha256(played).hexdigest()
    assert record["lesson"] == {
        "env_options": {"seed": 1000},
        "habits": {"seed": 0, "forget": 0.5, "nothing": 0.1},
        "episodes": 60,
    }
    assert record["config"]["name"] == "base-letters"
    conversations = read_conversations("played.jsonl", None, None, Problems("refuse"))
    assert 40 < len(conversations) < 60
    assert {row.reward for row in conversations} > {1.0, 0.0}
    base, players = record["skills"]["base"], record["skills"]["players"]
    assert base["summary"]["n"] == 20 and 10 < players["summary"]["n"] < 20
    assert base["shown"]["looked"][1] == 20
    text = page.read_text()
    assert text.startswith("Skills:\n<!-- table:small -->\n|  | players | base |") and text.endswith("End.\n")
    assert "| looked first |" in text and "| looked first |" in capsys.readouterr().out
    mine = load_config(config, [f"model.path={out}", "name=next"])  # a study's run begins with it
    assert mine.model.hidden_size == 32

    with pytest.raises(ConfigError, match="exists already"):
        main(words)
    other = [str(config), "--out", str(tmp_path / "bases/other")]
    with pytest.raises(ConfigError, match="holds something else than these players play"):
        main([*other, "--habit", "forget=0.1"])
    assert Path("played.jsonl").read_bytes() == played
    assert not (tmp_path / "bases/other").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rounds=1", "recipe=rft"], "rounds: found 1, expected 0"),
        (["warm_start.data=null"], "warm_start.data: found None, expected a .jsonl file"),
        (["warm_start.tasks=10:60"], "warm_start.tasks: found '10:60', expected 0:N"),
        (["warm_start.tasks=0:500"], "found 500 episodes, expected at most 200"),
        (["--seed", "0"], "--seed: found 0, expected at least 0 and another than env.options.seed"),
        (["--habit", "forgt=0.1"], "forgt"),
        (["env.name=scienceworld"], "env.name: found 'scienceworld', which has no players"),
        (["--page", "nowhere.md"], "nowhere.md"),
    ],
)
def test_what_makes_no_base_is_refused_before_any_training(tmp_path, capsys, words, message):
    config = base_config(tmp_path)
    with pytest.raises(SystemExit) as ended:
        run_command(main, [str(config), "--out", str(tmp_path / "new"), *words])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "new").exists() and not (tmp_path / "runs").exists()


@pytest.mark.parametrize("folder", BASES, ids=lambda path: path.name)
def test_the_bases_of_the_repository_agree_with_their_digests(folder):
    verify(folder)
    record = json.loads((folder / "base.json").read_text())
    config = load_config(ROOT / f"configs/study/base-{folder.name}.yaml", [])
    recorded = Config.model_validate_json(json.dumps(record["config"]))
    assert recorded == config  # options that came later have their defaults
    players = ENVIRONMENTS[config.env.name].players
    assert players is not None
    table = skills_page(players, record["skills"], record["machine"])
    page = (ROOT / "docs/bases.md").read_text()
    assert f"<!-- table:{folder.name} -->\n{table}\n<!-- /table -->" in page
