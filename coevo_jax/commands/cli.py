"""What every command shares: how it starts, and how errors reach the user."""

import argparse
import os
import select
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress

from coevo_jax.commands.codes import FAILURE, SIGNALLED, USER_ERROR
from coevo_jax.commands.refused_files import refusal
from coevo_jax.config.strict import ConfigError
from coevo_jax.files import cache_root
from coevo_jax.hosts import allocator


def run_process(main: Callable[[Sequence[str]], int | None]) -> None:
    """Run a command whose process this is.

    It starts over once where its allocator should keep what is freed, so nothing may have been done before.
    """
    allocator.begin(os.environ, sys.orig_argv)
    run_command(main)


def run_command(main: Callable[[Sequence[str]], int | None], argv: Sequence[str] | None = None) -> None:
    """Run a command's `main(argv)`, which may return an exit code.

    A user's error is one clear message and exit code 2, no traceback. Where the reader of the output has
    gone, as `head` goes, the command ends without a word and as if SIGPIPE had ended it.
    """
    use_compilation_cache()
    code = 0
    try:
        code = _run(main, sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for Python's own last flush
        code = code or SIGNALLED + signal.SIGPIPE
    if code:
        _exit(code)


def add_habits(parser: argparse.ArgumentParser) -> None:
    """Let a command set the rates of scripted players."""
    parser.add_argument(
        "--habit",
        dest="habits",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a rate of the players; may be given several times",
    )


def _run(main: Callable[[Sequence[str]], int | None], argv: Sequence[str]) -> int:
    """Run a command; returns its exit code.

    Raises:
      BrokenPipeError: nobody reads what it prints.
    """
    try:
        return main(argv) or 0
    except SystemExit as end:  # argparse's, after its help or usage, and the commands' own
        if isinstance(end.code, str):
            raise
        return end.code or 0
    except (Exception, KeyboardInterrupt) as error:
        if isinstance(error, BrokenPipeError) and _nobody_reads():
            raise
        code, message = explain(error)
        if message is None:
            traceback.print_exc()
        else:
            with suppress(BrokenPipeError):
                sys.stdout.flush()
            print(message if code > SIGNALLED else f"error: {message}", file=sys.stderr)
        return code


def _nobody_reads() -> bool:
    """Whether the output is a pipe whose reader has gone; a pipe to an environment may break as well."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def explain(error: BaseException) -> tuple[int, str | None]:
    """The exit code of an error and what it says to the user; None where only a traceback helps.

    Notes that a command has put on it, such as how to go on, follow what it says.
    """
    code, words = _told(error)
    return code, words and "; ".join([words, *getattr(error, "__notes__", [])])


def _told(error: BaseException) -> tuple[int, str | None]:
    if isinstance(error, ConfigError):
        return USER_ERROR, str(error)
    if isinstance(error, KeyboardInterrupt):
        return SIGNALLED + signal.SIGINT, "interrupted"
    if isinstance(error, OSError) and (words := refusal(error)) is not None:
        return USER_ERROR, words
    from coevo_jax.commands.actions.ends import (
        explain_work,  # the work that ended like this has imported it all
    )

    return explain_work(error) or (FAILURE, None)


def use_compilation_cache() -> None:
    """Keep compiled programs between processes, in $COEVO_CACHE/jax or ~/.cache/coevo_jax/jax.

    JAX reads it from the environment when it is imported. $JAX_COMPILATION_CACHE_DIR, where it is set, stays
    in force.
    """
    if os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(cache_root() / "jax")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")


def _exit(code: int) -> None:
    jax = sys.modules.get("jax")
    if jax is not None and jax.distributed.is_initialized():
        # The other processes have been told, and some may wait for calls that never return: no use in JAX's
        # own farewell, which waits for all of them.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
