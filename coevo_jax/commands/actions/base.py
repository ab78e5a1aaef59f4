"""Let players play, train on it, export, and say what the base can do."""

import argparse
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from coevo_jax.commands.actions.data import PLAYED_FORMAT, player_rows, progress
from coevo_jax.commands.actions.train import train_together
from coevo_jax.commands.train import parse as parse_train
from coevo_jax.config.check import slice_bounds
from coevo_jax.config.options import Config
from coevo_jax.config.reading import read_options
from coevo_jax.config.recipe_queries import agents_of
from coevo_jax.config.strict import ConfigError, validate
from coevo_jax.data.chat.format import chat_format
from coevo_jax.data.chat.tokenizer import load_tokenizer
from coevo_jax.data.interchange.convert import convert, render_conversation
from coevo_jax.data.interchange.records import Record, from_demonstration
from coevo_jax.data.interchange.sets import Problems
from coevo_jax.data.parquet import read_trajectories
from coevo_jax.envs.env import error_test
from coevo_jax.envs.players import Lesson, PlayerHabits, Players, play_tasks
from coevo_jax.envs.registry import find_environment, make_env
from coevo_jax.files import require_writable, write_whole
from coevo_jax.progress import CONSOLE
from coevo_jax.report.browser import find_groups
from coevo_jax.report.markdown import machine, replace_table, require_table
from coevo_jax.report.skills import Skills, measure_skills, skills_page
from coevo_jax.run_folder.folder import run_folder
from coevo_jax.run_folder.results import load_results
from coevo_jax.stored.export import export_agent

RECORD_FILE = "base.json"
DIGESTS_FILE = "SHA256SUMS"


def make_base(args: argparse.Namespace, config: Config) -> None:
    """Make a base as the command line asks."""
    players = find_environment(config.env.name).players
    assert players is not None and config.warm_start.data is not None  # or they were refused
    if args.page is not None:
        require_table(args.out.name, args.page)
    require_writable(args.out / RECORD_FILE if args.out.exists() else args.out)
    habits = validate(players.habits, read_options(args.habits), "--habit")
    options = validate(find_environment(config.env.name).options, dict(config.env.options), args.config)
    players.check(options)
    episodes = slice_bounds(config.warm_start.tasks)[1] or 0
    lesson = players.lesson(options, habits, args.seed, episodes)
    write_played(players, config.env.name, lesson, Path(config.warm_start.data))
    train_together(parse_train(["--auto-resume", args.config, *args.overrides]))
    folder, agent = run_folder(config), agents_of(config.recipe)[0]
    export_agent(folder, args.out, agent=agent, form="merged")
    measured = measure(players, habits, config, folder, args.out)
    made = machine(load_results(folder)["environment"])
    text = skills_page(players, measured, made)
    record = {
        "config": config.model_dump(mode="json"),
        "lesson": {
            "env_options": lesson.options.model_dump(mode="json"),
            "habits": lesson.habits.model_dump(mode="json"),
            "episodes": lesson.episodes,
        },
        "played_sha256": sha256(Path(config.warm_start.data)),
        "machine": made,
        "skills": measured,
    }
    write_whole(args.out / RECORD_FILE, json.dumps(record, indent=1) + "\n")
    write_digests(args.out)
    if args.page is not None:
        replace_table(args.out.name, text, args.page)
    CONSOLE.print(text, soft_wrap=True, markup=False, highlight=False)
    CONSOLE.print(f"base: {args.out}", soft_wrap=True)


def write_played(players: Players, name: str, lesson: Lesson, path: Path) -> None:
    """Write the players' episodes to the file that the run imitates; one that is there must be the same.

    Raises:
      ConfigError: the file holds something else, or the world has fewer tasks than episodes are wanted.
    """
    fresh = path.with_name(f".{path.stem}.{os.getpid()}.new.jsonl")
    try:
        with progress("play") as update:
            _, count = convert(
                _taught(players, name, lesson, update), fresh, PLAYED_FORMAT, problems=Problems("refuse")
            )
        if path.exists() and sha256(path) != sha256(fresh):
            raise ConfigError(
                f"{path}: holds something else than these players play; remove it, or name another file"
            )
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
    CONSOLE.print(f"{path}: {count} episodes of players", soft_wrap=True)


def _taught(
    players: Players, name: str, lesson: Lesson, update: Callable[[int, int | None], None]
) -> Iterator[tuple[str, Record]]:
    env = make_env(name, lesson.options.model_dump())()
    try:
        found = len(env.tasks("train"))
        if found < lesson.episodes:
            raise ConfigError(f"warm_start.tasks: found {lesson.episodes} episodes, expected at most {found}")
        played = play_tasks(players, env, "train", range(lesson.episodes), lesson.habits)
        yield from player_rows(played, env, [], update)
    finally:
        env.close()


def measure(
    players: Players, habits: PlayerHabits, config: Config, run: Path, base: Path
) -> dict[str, Skills]:
    """The skills of the players and of the base, on the tasks that the run evaluated its agent on."""
    agent = agents_of(config.recipe)[0]
    paths = find_groups(run)[(0, f"eval-{agent}")]
    env = make_env(config.env.name, config.env.options)()
    try:
        start, stop = slice_bounds(config.evaluate.tasks)
        places = range(len(env.tasks(config.evaluate.split)))[start:stop]
        chat = chat_format(load_tokenizer(base))
        played = [
            render_conversation(chat, from_demonstration(episode, env.system_prompt, {}), env.system_prompt)
            for _, episode in play_tasks(players, env, config.evaluate.split, places, habits)
            if episode is not None
        ]
        is_error = error_test(env)
    finally:
        env.close()
    return {
        name: measure_skills(
            episodes,
            players,
            is_error,
            seed=config.seed,
            hard_negative_threshold=config.evaluate.hard_negative_threshold,
        )
        for name, episodes in (("players", played), ("base", read_trajectories(paths)))
    }


def write_digests(folder: Path) -> Path:
    """Write SHA256SUMS of every file of a folder, as `sha256sum -c` reads it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != DIGESTS_FILE)
    lines = [f"{sha256(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
    return write_whole(folder / DIGESTS_FILE, "".join(lines))


def sha256(path: Path) -> str:
    """The digest of a file, in hexadecimal digits."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
