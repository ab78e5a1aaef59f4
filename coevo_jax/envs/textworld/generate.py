"""Making the games that are not there yet, in worker processes side by side; what is made stays made."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue

from coevo_jax.config.strict import ConfigError, validate
from coevo_jax.envs.env import SPLITS, EnvFault, Task
from coevo_jax.envs.textworld.games import (
    INDEX,
    GameRecord,
    game_request,
    index_text,
    planned_tasks,
    read_record,
    record_path,
)
from coevo_jax.envs.textworld.interpreter import Interpreter, WorkerError, check_package
from coevo_jax.envs.textworld.options import TextWorldOptions
from coevo_jax.files import write_whole

MAKE_SECONDS = 300.0  # a game that takes longer counts as a fault of the process


def generate_textworld(options: TextWorldOptions, out: Path, on_progress: Callable[[int, int], None]) -> None:
    """Write the games of all splits into a folder, to be played by the option `games_path`.

    The same options write the same bytes. Games that lie there already are kept, so an interrupted call goes
    on where it stopped.

    Raises:
      ConfigError: no game fits the options.
      EnvFault: the maker died twice.
    """
    if options.games_path is not None:
        raise ConfigError("env.options.games_path: found a folder, expected null: games are made, not read")
    plan = planned_tasks(options)
    tasks = [task for split in SPLITS for task in plan[split]]
    make_games(options, tasks, out, on_progress)
    records = [record for task in tasks if (record := read_record(out, task))]
    write_whole(out / INDEX, index_text(records))


def make_games(
    options: TextWorldOptions, tasks: Sequence[Task], folder: Path, on_progress: Callable[[int, int], None]
) -> None:
    """Make the games of `tasks` that the folder lacks; `on_progress(done, total)` after each.

    Several processes may do so at once: each writes whole files, and the same ones.

    Raises:
      ConfigError, EnvFault: as in `generate_textworld`.
    """
    missing = [task for task in dict.fromkeys(tasks) if read_record(folder, task) is None]
    if not missing:
        return
    check_package()
    with workers(min(options.workers, len(missing))) as free:
        pool = ThreadPoolExecutor(options.workers, thread_name_prefix="textworld-games")
        try:
            for done, _ in enumerate(
                pool.map(lambda task: _make_with(free, options, task, folder), missing), start=1
            ):
                on_progress(done, len(missing))
        finally:
            pool.shutdown(cancel_futures=True)


@contextmanager
def workers(count: int) -> Iterator["SimpleQueue[Interpreter]"]:
    """A queue of that many worker processes, for taking one and putting it back; all end afterwards."""
    free: SimpleQueue[Interpreter] = SimpleQueue()
    for _ in range(count):
        free.put(Interpreter())
    try:
        yield free
    finally:
        while not free.empty():
            free.get().close()


def _make_with(
    free: "SimpleQueue[Interpreter]", options: TextWorldOptions, task: Task, folder: Path
) -> GameRecord:
    """Make one game with a free worker; one that dies or hangs is replaced once."""
    worker = free.get()
    try:
        try:
            return make_game(worker, options, task, folder)
        except EnvFault:
            worker.close()
            worker = Interpreter()
            return make_game(worker, options, task, folder)
    finally:
        free.put(worker)


def make_game(worker: Interpreter, options: TextWorldOptions, task: Task, folder: Path) -> GameRecord:
    """Make one game and write its record.

    Raises:
      ConfigError: no game fits the settings.
      EnvFault: the worker failed.
    """
    request = game_request(options, task, folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be written ({error}), expected a folder for games") from None
    alarm = threading.Timer(MAKE_SECONDS, worker.close)
    alarm.daemon = True
    alarm.start()
    try:
        made = worker.call(request)
    except WorkerError as error:
        raise EnvFault(f"making game {task.id} failed: {error}") from error
    finally:
        alarm.cancel()
    if made is None:
        raise ConfigError(
            f"env textworld: found no {task.family} game of settings {request['settings']}, expected "
            "settings that allow one: more rooms (world_size) or a shorter quest (quest_length)"
        )
    named = {"id": task.id, "split": task.split, "family": task.family, "file": task.id}
    record = validate(GameRecord, named | made, str(folder / task.id))
    write_whole(record_path(folder, task), record.model_dump_json() + "\n")
    return record
