"""Games as files: what is made for a task, where it lies, and the record that makes it a task.

A game is three files, `<family>/<split>-<number>` with the endings .z8 (the game), .json (TextWorld's own
description of it) and .task.json (its record, written last: a game without it is made again). Made games lie
in a cache, one folder for all options that shape them; a folder that `generate_textworld` wrote also has
`games.jsonl`, the records of all its games.
"""

import hashlib
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from coevo_jax.config.streams import stream
from coevo_jax.config.strict import ConfigError, StrictModel, validate
from coevo_jax.envs.env import SPLITS, Task
from coevo_jax.envs.textworld.interpreter import TEXTWORLD_VERSION
from coevo_jax.envs.textworld.options import TextWorldOptions
from coevo_jax.files import as_called, cache_root

RECIPE_VERSION = 1
"""Raised when the same options make other games, so that the cache is not mixed."""

INDEX = "games.jsonl"
COOKING_ROOMS = 6
ENDINGS = (".z8", ".json")


class RecordedTurn(StrictModel):
    """A turn of the expert, with TextWorld's own words."""

    action: str
    """Command."""
    observation: str
    """Answer, as the interpreter gives it."""
    commands: tuple[str, ...]
    """Commands that would have an effect afterwards."""


class GameRecord(StrictModel):
    """All that is known of a game without running it."""

    id: str = Field(min_length=1)
    """Name of the task, used once."""
    split: Literal["train", "dev", "test"]
    """Split of the task."""
    family: str = Field(min_length=1)
    """Kind of game, for tables."""
    file: str = Field(min_length=1)
    """Path of the game below the folder, without ending: a .z8 and a .json file."""
    max_score: int = Field(ge=1)
    """Points of a won game."""
    prompt: str = Field(min_length=1)
    """First observation, as the interpreter gives it."""
    commands: tuple[str, ...]
    """Commands that would have an effect at the start."""
    turns: tuple[RecordedTurn, ...]
    """A walkthrough that wins, as it was replayed."""

    @property
    def task(self) -> Task:
        return Task(id=self.id, split=self.split, family=self.family)


def cache_folder(options: TextWorldOptions) -> Path:
    """Folder of the games of these options in the cache.

    Counts of games do not shape a game: asking for more keeps those there are.
    """
    shaping = {
        "recipe": RECIPE_VERSION,
        "textworld": TEXTWORLD_VERSION,
        "seed": options.seed,
        "world_size": options.world_size,
        "nb_objects": options.nb_objects,
        "quest_length": options.quest_length,
        "full_instructions": options.full_instructions,
    }
    name = hashlib.sha256(json.dumps(shaping, sort_keys=True).encode()).hexdigest()[:16]
    return cache_root() / "textworld" / name


def planned_tasks(options: TextWorldOptions) -> dict[str, tuple[Task, ...]]:
    """Tasks of every split in shuffled order, families evenly mixed; no game is made for it."""
    counts = (options.train_games, options.dev_games, options.test_games)
    families = tuple(dict.fromkeys(options.families))
    splits = {}
    for place, (split, count) in enumerate(zip(SPLITS, counts, strict=True)):
        tasks = []
        for index in range(count):
            family = families[index % len(families)]
            number = index // len(families)
            tasks.append(Task(id=f"{family}/{split}-{number}", split=split, family=family))
        order = stream("textworld order", options.seed, place).permutation(count)
        splits[split] = tuple(tasks[index] for index in order)
    return splits


def game_request(options: TextWorldOptions, task: Task, folder: Path) -> dict:
    """The request that makes a task's game (see `making.make_game`): settings drawn by seed and task id."""
    number = int(task.id.rpartition("-")[2])
    seed = [options.seed, SPLITS.index(task.split), zlib.crc32(task.family.encode()), number]
    rng = stream("textworld settings", *seed)

    def drawn(least: int, most: int) -> int:
        return int(rng.integers(least, most + 1))

    rooms, objects = drawn(*options.world_size), drawn(*options.nb_objects)
    length = drawn(*options.quest_length)
    settings: dict = {
        "rooms": rooms,
        "objects": objects,
        "quest_length": length,
        "full_instructions": options.full_instructions,
    }
    if task.family == "coin":  # rooms off the path: at most three to each on it
        settings["rooms"] = min(max(rooms, length), 4 * length)
    elif task.family == "treasure":
        settings["rooms"] = max(rooms, length + 1)  # an easy one is all walking
        settings["mode"] = ("easy", "medium", "hard")[drawn(0, 2)]
    elif task.family == "cooking":
        ingredients = min(3, max(1, length // 2))
        settings |= {
            "recipe": ingredients,
            "take": drawn(1, ingredients),
            "open": bool(drawn(0, 1)),
            "cook": bool(drawn(0, 1)),
            "cut": bool(drawn(0, 1)),
            "go": COOKING_ROOMS if options.world_size[1] >= COOKING_ROOMS else 1,
            "split": "test" if task.split == "test" else "train",
        }
    return {
        "call": "make",
        "family": task.family,
        "settings": settings,
        "seed": seed,
        "split": task.split,
        "stem": str(folder / task.id),
    }


def record_path(folder: Path, task: Task) -> Path:
    """Place of a made game's record."""
    return folder / f"{task.id}.task.json"


def read_record(folder: Path, task: Task) -> GameRecord | None:
    """A made game's record; None where the game is not (wholly) made."""
    path = record_path(folder, task)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        record = validate(GameRecord, content, str(path))
    except (OSError, ValueError, ConfigError):
        return None
    return record if all((folder / f"{record.file}{ending}").is_file() for ending in ENDINGS) else None


def index_text(records: Sequence[GameRecord]) -> str:
    """Content of `games.jsonl`."""
    return "".join(record.model_dump_json() + "\n" for record in records)


def read_index(folder: Path) -> tuple[GameRecord, ...]:
    """The games of a folder that `generate_textworld` wrote.

    Raises:
      ConfigError: a line is wrong (the message names file and line), or a game's files are missing.
    """
    path = folder / INDEX
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path}: found no readable text ({error}), expected the index of a folder that "
            + as_called("`python -m launch.data generate textworld --out FOLDER` wrote")
        ) from None
    records: dict[str, GameRecord] = {}
    for number, line in enumerate(lines, start=1):
        source = f"{path}:{number}"
        try:
            content = json.loads(line)
        except ValueError as error:
            raise ConfigError(f"{source}: found {line[:60]!r}, expected a JSON object ({error})") from None
        record = validate(GameRecord, content, source)
        if record.id in records:
            raise ConfigError(f"{source}: id: found {record.id!r} a second time, expected a new one")
        for ending in ENDINGS:
            if not (folder / f"{record.file}{ending}").is_file():
                raise ConfigError(f"{source}: file: found no {record.file}{ending} in {folder}")
        records[record.id] = record
    if not records:
        raise ConfigError(f"{path}: found no game, expected one JSON object a line")
    return tuple(records.values())
