"""A run small enough for a test: every phase of co-evolution in seconds."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest

import coevo_jax.run_folder.run as run_module
from coevo_jax.coevolution import coevolve
from coevo_jax.config.options import Config
from coevo_jax.config.reading import load_config
from coevo_jax.envs.registry import EnvSpec
from coevo_jax.run_folder.manifest import Manifest
from coevo_jax.run_folder.run import Run, open_run

CONFIG = """\
name: tiny
rounds: 1
env: {name: letters}
tokenizer: {vocab_size: 300}
model: {hidden_size: 32, num_layers: 2, num_heads: 2, num_kv_heads: 2, head_dim: 16, intermediate_size: 64}
batch: {rows: 4, row_length: 128, views_per_row: 4, pairs: 32}
warm_start: {tasks: "0:40", epochs: 10, learning_rate: 1e-2}
explore: {tasks: ["40:60"], samples: 2, temperature: 1.0, block_tasks: 7}
rollout: {slots: 4, max_tokens: 128, max_turn_tokens: 24, decode_block: 16}
recipe:
  - explore: {agent: target}
  - explore: {agent: failure}
  - learn:
      agent: failure
      sources: [{pairs: better_over_worse, of: [target, failure], kind: failure_failure, dpo: 1.0}]
  - explore: {agent: failure, into: hard_negatives}
  - learn:
      agent: target
      sources:
        - {pairs: expert_over, of: target, kind: expert_target, dpo: 0.5, sft: 0.5}
        - {pairs: expert_over, of: hard_negatives, kind: expert_failure, dpo: 0.5, sft: 0.5}
        - {pairs: better_over_worse, of: [target, hard_negatives], kind: failure_failure, max_extra_turns: 5}
  - evaluate: {agent: target}
  - evaluate: {agent: failure}
agents:
  target: {epochs: 2}
  failure: {epochs: 2}
evaluate: {split: dev}
checkpoint: {every_steps: 3, keep: 2}
"""

SPELLING = EnvSpec(
    options_at="tests.spelling_env:SpellingOptions", make_at="tests.spelling_env:make_spelling"
)
LETTERS = EnvSpec(options_at="tests.letters_env:LettersOptions", make_at="tests.letters_env:make_letters")


class Killed(BaseException):
    """Stands for kill -9: no handler of a run sees it."""


def write_config(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tiny.yaml"
    path.write_text(CONFIG)
    return path


def tiny_config(folder: Path, *overrides: str) -> Config:
    return load_config(write_config(folder), [f"runs_dir={folder / 'runs'}", *overrides])


def kill_at_commits(
    monkeypatch: pytest.MonkeyPatch,
    when: Literal["before", "after"],
    first: int = 3,
    every: int = 3,
    counted: Callable[[Manifest], bool] = lambda manifest: True,
) -> None:
    """Kill runs at the `first` of the counted commits, from 1, and at every so-manieth after it.

    Before: the states are saved, the manifest is not. After: the manifest is written, nothing else is.
    """
    commits, write = 0, run_module.write_manifest

    def write_or_die(folder: Path, manifest: Manifest) -> None:
        nonlocal commits
        commits += counted(manifest)
        dies = counted(manifest) and commits >= first and (commits - first) % every == 0
        if dies and when == "before":
            raise Killed
        write(folder, manifest)
        if dies:
            raise Killed

    monkeypatch.setattr(run_module, "write_manifest", write_or_die)


def coevolve_through_kills(run: Run, most: int = 40) -> tuple[Run, int]:
    """Resume a run until nobody kills it any more; the open run that ended, and how often it was killed."""
    kills = 0
    while True:
        try:
            coevolve(run)
            return run, kills
        except Killed:
            kills += 1
            assert kills < most
            run.close()
            run = open_run(run.folder)
