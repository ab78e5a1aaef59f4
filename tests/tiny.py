"""A run small enough for a test: every phase of co-evolution in seconds."""

from pathlib import Path

from coevo_jax.config import Config
from coevo_jax.config_io import load_config
from coevo_jax.envs.registry import EnvSpec

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
target:
  pairs:
    expert_target: {dpo: 0.5, sft: 0.5}
    expert_failure: {dpo: 0.5, sft: 0.5}
    failure_failure: {dpo: 0.5}
  epochs: 2
failure:
  pairs:
    failure_failure: {dpo: 1.0}
  epochs: 2
evaluate: {split: dev}
checkpoint: {every_steps: 3, keep: 2}
"""

LETTERS = EnvSpec(module="tests.letters_env", options_name="LettersOptions", make_name="make_letters")


class Killed(BaseException):
    """Stands for kill -9: no handler of a run sees it."""


def write_config(folder: Path) -> Path:
    path = folder / "tiny.yaml"
    path.write_text(CONFIG)
    return path


def tiny_config(folder: Path, *overrides: str) -> Config:
    return load_config(write_config(folder), [f"runs_dir={folder / 'runs'}", *overrides])
