"""Which config a command line means, and what can be refused of it before anything heavy is imported."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from coevo_jax.config.options import Config
from coevo_jax.config.reading import load_config
from coevo_jax.config.recipe_queries import agents_of
from coevo_jax.config.strict import ConfigError, nearest
from coevo_jax.envs.registry import check_options
from coevo_jax.files import shipped
from coevo_jax.learning.loss_names import check_losses

KINDS = ("", "paper", "study")  # folders of shipped configs that are whole runs


def shipped_configs() -> dict[str, Path]:
    """The configs that come with the code, by their bare names."""
    return {path.stem: path for kind in KINDS for path in sorted(shipped(kind).glob("*.yaml"))}


def config_file(text: str) -> Path:
    """The file that a command line names: a path, or the bare name of a config that comes with the code.

    Raises:
      ConfigError: it is neither; with the nearest name.
    """
    path, names = Path(text), shipped_configs()
    if path.is_file():
        return path
    if text in names:
        return names[text]
    if path.suffix in (".yaml", ".yml"):
        if not path.exists() and not path.parent.is_dir() and path.stem in names:
            raise ConfigError(f"{path}: no such file (a config {path.stem!r} comes with the code)")
        return path  # whoever reads it tells what is wrong, and the nearest file
    if path.exists():
        return path
    raise ConfigError(f"{text}: no such file, and no config of that name{nearest(text, list(names))}")


def add_agent(parser: argparse.ArgumentParser) -> None:
    """Let a command line name a run and one of its agents; `agent_of` tells which."""
    parser.add_argument("run", type=Path, help="folder of a run")
    parser.add_argument(
        "--agent", metavar="NAME", help="by the recipe's name (default: the first that it names)"
    )


def add_mark(parser: argparse.ArgumentParser) -> None:
    """Let a command line name the mark that the agent plays under."""
    parser.add_argument(
        "--mark",
        metavar="TEXT",
        help="mark that tasks are played under, {task} standing for a task's text; an empty one plays "
        "without (default: the mark of the recipe's evaluation of the agent)",
    )


def agent_of(config: Config, name: str | None) -> str:
    """The agent that a command line names: one of the recipe's, or the first that it names.

    Raises:
      ConfigError: the recipe has no such agent.
    """
    agents = agents_of(config.recipe)
    if name is not None and name not in agents:
        raise ConfigError(f"--agent {name}: the run has no such agent{nearest(name, agents)}")
    return name or agents[0]


def read_config(text: str, overrides: Sequence[str]) -> Config:
    """Read the config of a file or name, checked as far as its text and the losses' names go.

    Raises:
      ConfigError: it cannot be used.
    """
    config = load_config(config_file(text), overrides)
    check_losses(config)
    return config


def read_played_config(text: str, overrides: Sequence[str]) -> Config:
    """Read a config whose environment is going to be played: its name and options are checked, too.

    Raises:
      ConfigError: it cannot be used.
    """
    config = read_config(text, overrides)
    check_options(config.env.name, config.env.options)
    return config
