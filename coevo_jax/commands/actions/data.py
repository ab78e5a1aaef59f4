"""Generate, export, convert, inspect and validate data sets, as a command line asks."""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

from coevo_jax.commands.actions.data_tables import print_summary
from coevo_jax.config.check import slice_bounds
from coevo_jax.config.reading import read_options
from coevo_jax.config.strict import ConfigError, validate
from coevo_jax.data.chat.format import ChatFormat, chat_format
from coevo_jax.data.chat.tokenizer import load_tokenizer
from coevo_jax.data.interchange.convert import check_target, convert
from coevo_jax.data.interchange.records import Record, from_demonstration
from coevo_jax.data.interchange.set_summary import learned_words, summarize_records
from coevo_jax.data.interchange.sets import Problems, open_set, read_records
from coevo_jax.envs.env import Env, PreparesExperts, Task
from coevo_jax.envs.players import play_tasks
from coevo_jax.envs.registry import ENVIRONMENTS, make_env
from coevo_jax.files import require_writable
from coevo_jax.progress import CONSOLE
from coevo_jax.trajectory import Demonstration

MOST_LISTED = 100  # broken rows that `validate` lists
PLAYED_FORMAT = "messages"  # of players' episodes


def generate(args: argparse.Namespace) -> None:
    """Write an environment's generated data, or the episodes of its players."""
    if args.players:
        play_episodes(args)
        return
    spec = ENVIRONMENTS[args.name]
    if args.out.exists() and not args.out.is_dir():
        raise ConfigError(f"{args.out}: is a file, expected a folder")
    if not args.overwrite and args.out.is_dir() and any(args.out.iterdir()):
        raise ConfigError(f"{args.out}: holds files already; name an empty folder, or give --overwrite")
    options = validate(spec.options, read_options(args.options), "command line")
    write = spec.generate
    assert write is not None  # or it was refused
    args.out.mkdir(parents=True, exist_ok=True)
    with progress(f"generate {args.name}") as update:
        write(options, args.out, update)
    for path in sorted(path for path in args.out.rglob("*") if path.is_file()):
        CONSOLE.print(f"{path.stat().st_size:>14,} bytes  {path}", soft_wrap=True)


def experts(args: argparse.Namespace) -> None:
    """Export the experts of a slice of a split."""
    _check_output(args)
    chat = _chat(args.tokenizer)
    env = make_env(args.name, read_options(args.options))()
    try:
        tasks = _tasks(env, args.split, args.tasks)
        if isinstance(env, PreparesExperts):
            with progress("prepare experts") as update:
                env.prepare_experts(tasks, update)
        missing: list[str] = []
        with progress("export") as update:
            rows = _expert_rows(env, tasks, missing, update)
            path, count = convert(
                rows, args.out, args.to, problems=Problems("refuse"), split=args.split, chat=chat
            )
    finally:
        env.close()
    CONSOLE.print(f"{count} experts of {len(tasks)} tasks written to {path}", soft_wrap=True)
    _print_missing(missing)


def play_episodes(args: argparse.Namespace) -> None:
    """Write episodes of an environment's scripted players in the messages format."""
    args.to = PLAYED_FORMAT
    _check_output(args)
    spec = ENVIRONMENTS[args.name]
    players = spec.players
    assert players is not None  # or it was refused
    options = validate(spec.options, read_options(args.options), "command line")
    habits = validate(players.habits, read_options(args.habits), "--habit")
    players.check(options)
    env, split = spec.make(options), args.split or "train"
    try:
        places = _places(env, split, args.tasks or ":")
        missing: list[str] = []
        with progress("play") as update:
            rows = player_rows(play_tasks(players, env, split, places, habits), env, missing, update)
            path, count = convert(rows, args.out, PLAYED_FORMAT, problems=Problems("refuse"), split=split)
    finally:
        env.close()
    CONSOLE.print(f"{count} episodes of {len(places)} tasks written to {path}", soft_wrap=True)
    _print_missing(missing)


def player_rows(
    episodes: Iterator[tuple[Task, Demonstration | None]],
    env: Env,
    missing: list[str],
    update: Callable[[int, int | None], None],
) -> Iterator[tuple[str, Record]]:
    """Episodes of players as rows of a set; `missing` gets the tasks that they had nothing to follow in."""
    for done, (task, episode) in enumerate(episodes, start=1):
        update(done, None)
        if episode is None:
            missing.append(task.id)
            continue
        extra = {"family": task.family, "split": task.split, "environment": env.name}
        yield task.id, from_demonstration(episode, env.system_prompt, extra)


def _print_missing(missing: Sequence[str]) -> None:
    if missing:
        CONSOLE.print(
            f"no expert: {', '.join(missing[:10])}{' …' if len(missing) > 10 else ''}", soft_wrap=True
        )


def _places(env: Env, split: str, where: str) -> range:
    """The places of a slice of a split's tasks."""
    try:
        start, stop = slice_bounds(where)
    except ValueError:
        raise ConfigError(f"--tasks: found {where!r}, expected a slice such as 0:300, :50 or :") from None
    tasks = env.tasks(split)
    places = range(len(tasks))[start:stop]
    if not places:
        raise ConfigError(f"--tasks: {where!r} selects none of the {len(tasks)} tasks of the {split} split")
    return places


def _tasks(env: Env, split: str, where: str) -> Sequence[Task]:
    tasks = env.tasks(split)
    return [tasks[place] for place in _places(env, split, where)]


def _expert_rows(
    env: Env, tasks: Sequence[Task], missing: list[str], update: Callable[[int, int | None], None]
) -> Iterator[tuple[str, Record]]:
    for index, task in enumerate(tasks):
        demonstration = env.expert(task)
        update(index + 1, len(tasks))
        if demonstration is None:
            missing.append(task.id)
            continue
        extra = {"family": task.family, "split": task.split, "environment": env.name}
        yield task.id, from_demonstration(demonstration, env.system_prompt, extra)


def convert_sets(args: argparse.Namespace) -> None:
    """Write sets in another format."""
    _check_output(args)
    problems = Problems(args.on_error)
    path, count = convert(
        _all_records(args, problems),
        args.out,
        args.to,
        problems=problems,
        split=args.split or "train",
        system_prompt=args.system_prompt,
        chat=_chat(args.tokenizer),
    )
    CONSOLE.print(f"{count} rows written to {path}", soft_wrap=True)
    _print_problems(problems)


def inspect(args: argparse.Namespace) -> None:
    """Show what sets hold."""
    for name in args.sets:
        problems = Problems(args.on_error)
        opened = open_set(name, args.source_format, args.split)
        with progress(name) as update:
            summary = summarize_records(read_records(opened, problems, update), args.samples)
        print_summary(CONSOLE, name, opened.format, summary, problems.count)
        _print_problems(problems)


def validate_sets(args: argparse.Namespace) -> None:
    """Check every row of sets.

    Raises:
      ConfigError: one is broken; the places have been listed by then.
    """
    broken, rows = 0, 0
    for name in args.sets:
        problems = Problems("skip", MOST_LISTED)
        opened = open_set(name, args.source_format, args.split)
        with progress(name) as update:
            summary = summarize_records(read_records(opened, problems, update), 0)
        for problem in problems.first:
            CONSOLE.print(Text(problem), soft_wrap=True)
        if problems.count > len(problems.first):
            CONSOLE.print(f"… and {problems.count - len(problems.first)} more")
        if not problems.count:
            CONSOLE.print(f"{name}: {opened.format}, {summary.rows} rows, all good", soft_wrap=True)
        for layout, kind in summary.learned.items():
            CONSOLE.print(f"{name}: {learned_words(layout, kind)}", soft_wrap=True)
        for note, count in summary.notes.items():
            if count:
                CONSOLE.print(f"{name}: note: {count} {note}", soft_wrap=True)
        broken, rows = broken + problems.count, rows + summary.rows
    if broken:
        raise ConfigError(f"{broken} broken rows, {rows} good ones")


def _all_records(args: argparse.Namespace, problems: Problems) -> Iterator[tuple[str, Record]]:
    for name in args.sets:
        opened = open_set(name, args.source_format, args.split)
        with progress(name) as update:
            yield from read_records(opened, problems, update)


def _print_problems(problems: Problems) -> None:
    if problems.count:
        CONSOLE.print(Text(f"{problems.count} broken rows left out:", "yellow"))
    for problem in problems.first:
        CONSOLE.print(Text(f"  {problem}"), soft_wrap=True)
    if problems.count > len(problems.first):
        CONSOLE.print(f"  … and {problems.count - len(problems.first)} more")


def _check_output(args: argparse.Namespace) -> None:
    check_target(args.out, args.to)
    if args.out.is_file() and not args.overwrite:
        raise ConfigError(f"{args.out}: exists already; name another file, or give --overwrite")
    require_writable(args.out / "rows" if args.out.is_dir() else args.out)


def _chat(tokenizer: Path | None) -> ChatFormat | None:
    return None if tokenizer is None else chat_format(load_tokenizer(tokenizer))


@contextmanager
def progress(label: str) -> Iterator[Callable[[int, int | None], None]]:
    """A bar while the block runs, and a callback (done, total) that moves it; nothing without a terminal."""
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=40),
        TaskProgressColumn(show_speed=False),
        TimeRemainingColumn(),
        console=CONSOLE,
        transient=True,
        disable=not CONSOLE.is_terminal,
    )
    with bar:
        task = bar.add_task(label if len(label) < 50 else f"…{label[-49:]}", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


COMMANDS: dict[str, Callable[[argparse.Namespace], None]] = {
    "generate": generate,
    "experts": experts,
    "convert": convert_sets,
    "inspect": inspect,
    "validate": validate_sets,
}


def run(args: argparse.Namespace) -> None:
    """Run a command.

    Raises:
      ConfigError: something given cannot be used.
    """
    try:
        COMMANDS[args.command](args)
    except KeyboardInterrupt:
        print("interrupted; no half-written file was left", file=sys.stderr)
        sys.exit(130)
