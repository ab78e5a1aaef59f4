"""Expert solutions of ALFWorld's games: the walkthrough of the file or the planner's, replayed and stored."""

import functools
import hashlib
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

from coevo_jax.config.strict import ConfigError, StrictModel, validate
from coevo_jax.envs.alfworld.games import Game
from coevo_jax.envs.env import EnvFault
from coevo_jax.envs.textworld.games import RecordedTurn
from coevo_jax.envs.textworld.session import Session
from coevo_jax.files import cache_root, write_whole

SAVE_EVERY = 20  # experts between two writes of the file
SOLVE_SECONDS = 300.0  # a game that takes longer counts as a fault of its process


class ExpertRow(StrictModel):
    """A line of the expert file: a solution, or the finding that there is none."""

    task_id: str
    """Task."""
    digest: str
    """Digest of the game file that was solved; another one is solved anew."""
    prompt: str = ""
    """First observation."""
    commands: tuple[str, ...] = ()
    """Commands that would have an effect at the start."""
    turns: tuple[RecordedTurn, ...] = ()
    """The replayed solution; empty where none was found."""


def default_experts_path(folder: Path) -> Path:
    """Place of the expert file of a folder of games, in the cache."""
    name = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    return cache_root() / "alfworld" / f"experts-{name}.jsonl"


def read_experts(path: Path) -> Mapping[str, ExpertRow]:
    """Rows by task id; a missing file has none.

    Raises:
      ConfigError: a line is broken; the message names it.
    """
    modified = path.stat().st_mtime_ns if path.is_file() else 0
    return _read(path, modified)


@functools.lru_cache(maxsize=2)
def _read(path: Path, modified: int) -> Mapping[str, ExpertRow]:
    rows: dict[str, ExpertRow] = {}
    lines = path.read_text(encoding="utf-8").splitlines() if modified else []
    for number, line in enumerate(lines, start=1):
        source = f"{path}:{number}"
        try:
            content = json.loads(line)
        except ValueError as error:
            raise ConfigError(f"{source}: found {line[:60]!r}, expected a JSON object ({error})") from None
        row = validate(ExpertRow, content, source)
        rows[row.task_id] = row
    return rows


def prepare(games: Sequence[Game], path: Path, workers: int, on_progress: Callable[[int, int], None]) -> None:
    """Solve the games that the file lacks, and store what is found; `on_progress(done, total)` after each.

    What is finished stays stored when an interrupt or an `EnvFault` stops the work.
    """
    known = read_experts(path)
    missing = [game for game in games if not _is_known(known.get(game.task.id), game)]
    if not missing:
        return
    fresh: list[ExpertRow] = []
    free: SimpleQueue[Session] = SimpleQueue()
    for _ in range(min(workers, len(missing))):
        free.put(Session())
    pool = ThreadPoolExecutor(workers, thread_name_prefix="alfworld-experts")
    try:
        for done, row in enumerate(pool.map(lambda game: _solve_with(free, game), missing), start=1):
            fresh.append(row)
            if len(fresh) % SAVE_EVERY == 0:
                _add(fresh, path)
            on_progress(done, len(missing))
    finally:
        pool.shutdown(cancel_futures=True)
        while not free.empty():
            free.get().close()
        _add(fresh, path)


def _is_known(row: ExpertRow | None, game: Game) -> bool:
    return row is not None and row.digest == game.digest


def _add(fresh: Sequence[ExpertRow], path: Path) -> None:
    rows = {**read_experts(path), **{row.task_id: row for row in fresh}}
    write_whole(path, "".join(row.model_dump_json() + "\n" for row in rows.values()))


def _solve_with(free: "SimpleQueue[Session]", game: Game) -> ExpertRow:
    """Solve one game with a free session; one that dies or hangs is replaced once."""
    session = free.get()
    try:
        try:
            return _within_time(session, game)
        except EnvFault:
            session.close()
            session = Session()
            return _within_time(session, game)
    finally:
        free.put(session)


def _within_time(session: Session, game: Game) -> ExpertRow:
    alarm = threading.Timer(SOLVE_SECONDS, session.close)
    alarm.daemon = True
    alarm.start()
    try:
        return solve(session, game)
    finally:
        alarm.cancel()


def solve(session: Session, game: Game) -> ExpertRow:
    """Replay the file's walkthrough, else the planner's, and keep the first that wins."""
    start = session.start(game.path)
    for commands in (list(game.walkthrough), None):
        commands = session.plan() if commands is None else commands
        if commands and (turns := _replay(session, commands)):
            return ExpertRow(
                task_id=game.task.id,
                digest=game.digest,
                prompt=start["observation"],
                commands=tuple(start["commands"]),
                turns=turns,
            )
        session.start(game.path)
    return ExpertRow(task_id=game.task.id, digest=game.digest)


def _replay(session: Session, commands: Sequence[str]) -> tuple[RecordedTurn, ...]:
    """The turns of commands that win from the start, where the session stands; none where they do not."""
    turns = []
    for command in commands:
        position = session.play(command)
        if isinstance(position, str):
            return ()  # what the file brings as a command is none
        turns.append(
            RecordedTurn(
                action=command.strip(),
                observation=position["observation"],
                commands=tuple(position["commands"]),
            )
        )
        if position["won"]:
            return tuple(turns)
    return ()
