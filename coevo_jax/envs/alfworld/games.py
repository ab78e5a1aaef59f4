"""The games of an ALFWorld download: where its files are, and which of them are tasks."""

import functools
import hashlib
import importlib.metadata
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from coevo_jax.config.strict import ConfigError
from coevo_jax.envs.env import SPLITS, Task

FOLDERS = {"train": "train", "dev": "valid_seen", "test": "valid_unseen"}
GAME, DESCRIPTION = "game.tw-pddl", "traj_data.json"
PLANNER, PLANNER_VERSION = "fast-downward-textworld", "20.6.4"
UNSUPPORTED = ("movable", "Sliced")  # in a folder's name: ALFWorld itself leaves these tasks out
DOWNLOAD = "https://github.com/alfworld/alfworld/releases/download"
HOW_TO_GET = (
    f"expected {', '.join(f'{name}/<task>/<trial>/{GAME}' for name in FOLDERS.values())}, each beside a "
    f"{DESCRIPTION}; get them with: pip install alfworld && alfworld-download, or unpack "
    f"{DOWNLOAD}/0.2.2/json_2.1.1_json.zip and {DOWNLOAD}/0.4.0/json_2.1.2_tw-pddl.zip into one folder"
)


@dataclass(frozen=True, kw_only=True)
class Game:
    """One game of the download."""

    task: Task
    path: Path  # of its game.tw-pddl
    digest: str  # of the file's bytes
    walkthrough: tuple[str, ...]  # commands the file itself brings; empty where it brings none


def check_planner(version: tuple[int, ...] = sys.version_info[:2]) -> None:
    """Raise ConfigError unless TextWorld can run .tw-pddl games here.

    It fills its texts by names that it writes into locals() and evaluates; from Python 3.13 on (PEP 667)
    what is written there is lost, and the first observation is a NameError.
    """
    if version >= (3, 13):
        raise ConfigError(
            f"env alfworld: found Python {'.'.join(map(str, version))}, expected 3.11 or 3.12: TextWorld's "
            "runner of these games writes names into locals(), which Python 3.13 does not keep (PEP 667)"
        )
    try:
        importlib.metadata.version(PLANNER)
    except importlib.metadata.PackageNotFoundError:
        raise ConfigError(
            f"env alfworld: package {PLANNER}: found none, expected {PLANNER_VERSION} (GPL-3, so it is not "
            f"installed by default); install it with: pip install {PLANNER}=={PLANNER_VERSION}"
        ) from None


def data_folder(data_path: str | None) -> Path:
    """The folder of the games.

    Raises:
      ConfigError: the folder or one of its splits is missing.
    """
    if data_path is None:
        root = os.environ.get("ALFWORLD_DATA") or Path.home() / ".cache" / "alfworld"
        folder = Path(root) / "json_2.1.1"
    else:
        folder = Path(data_path)
    missing = [name for name in FOLDERS.values() if not (folder / name).is_dir()]
    if missing:
        raise ConfigError(
            f"env.options.data_path: {folder}: found no folder {', '.join(missing)}; {HOW_TO_GET}"
        )
    return folder


@functools.lru_cache(maxsize=2)
def read_games(folder: Path) -> Mapping[str, Game]:
    """All playable games by task id, which is the path of their folder; reads every file once per process.

    Games that ALFWorld marks as unsolvable or does not support are left out.

    Raises:
      ConfigError: a file cannot be read, or a split has no game.
    """
    games: dict[str, Game] = {}
    for split in SPLITS:
        before = len(games)
        for path in sorted((folder / FOLDERS[split]).rglob(GAME)):
            if not any(word in str(path.relative_to(folder)) for word in UNSUPPORTED):
                game = _read_game(folder, path, split)
                games |= {game.task.id: game} if game else {}
        if len(games) == before:
            raise ConfigError(f"{folder / FOLDERS[split]}: found no playable {GAME}; {HOW_TO_GET}")
    return games


def _read_game(folder: Path, path: Path, split: str) -> Game | None:
    content = _bytes(path)
    data = _object(content, path)
    for key in ("pddl_domain", "grammar", "pddl_problem"):
        if not isinstance(data.get(key), str):
            raise ConfigError(f"{path}: {key}: found {type(data.get(key)).__name__}, expected a text")
    if not data.get("solvable", True):
        return None
    description = path.with_name(DESCRIPTION)
    family = _object(_bytes(description), description).get("task_type")
    if not isinstance(family, str):
        raise ConfigError(f"{description}: task_type: found {family!r}, expected the name of a task type")
    name = path.parent.relative_to(folder).as_posix()
    return Game(
        task=Task(id=name, split=split, family=family),
        path=path,
        digest=hashlib.sha256(content).hexdigest()[:16],
        walkthrough=tuple(str(command) for command in data.get("walkthrough") or ()),
    )


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error}); {HOW_TO_GET}") from None


def _object(content: bytes, path: Path) -> dict:
    try:
        data = json.loads(content)
    except ValueError as error:
        raise ConfigError(f"{path}: found {content[:40]!r}, expected a JSON object ({error})") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: found {content[:40]!r}, expected a JSON object")
    return data
