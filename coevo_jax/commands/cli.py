"""What every command shares: how errors reach the user."""

import errno
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence

import jax

from coevo_jax.config.strict import ConfigError
from coevo_jax.files import cache_root
from coevo_jax.run_folder.stopping import Stopped
from coevo_jax.training.optimize import LearningDiverged

USER_ERROR = 2  # what was given cannot be used
FAILURE = 1  # it could, but the work broke off; the run can be resumed
SIGNALLED = 128  # plus the signal's number, as shells have it: it ended because it was asked to


def run_command(main: Callable[[Sequence[str]], int | None]) -> None:
    """Run a command's `main(argv)`, which may return an exit code.

    A user's error is one clear message and exit code 2, no traceback.
    """
    use_compilation_cache()
    try:
        code = main(sys.argv[1:]) or 0
    except (Exception, KeyboardInterrupt) as error:
        code, message = explain(error)
        if message is None:
            traceback.print_exc()
        else:
            sys.stdout.flush()
            print(message if code > SIGNALLED else f"error: {message}", file=sys.stderr)
        _exit(code)
    if code:
        _exit(code)


def explain(error: BaseException) -> tuple[int, str | None]:
    """The exit code of an error and what it says to the user; None where only a traceback helps."""
    if isinstance(error, ConfigError):
        return USER_ERROR, str(error)
    if isinstance(error, LearningDiverged):
        return FAILURE, str(error)
    if isinstance(error, KeyboardInterrupt):
        return SIGNALLED + signal.SIGINT, "interrupted; continue with --resume"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
        where = f" ({error.filename})" if error.filename else ""
        return USER_ERROR, (
            f"cannot write{where}: {os.strerror(error.errno)}; what was committed is intact: make room and "
            "continue with --resume"
        )
    if isinstance(error, Stopped):
        return SIGNALLED + error.signum, f"{error}; what is done is committed: continue with --resume"
    return FAILURE, None


def use_compilation_cache() -> None:
    """Keep compiled programs between processes, in $COEVO_CACHE/jax or ~/.cache/coevo_jax/jax.

    $JAX_COMPILATION_CACHE_DIR, where it is set, stays in force.
    """
    if os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return
    jax.config.update("jax_compilation_cache_dir", str(cache_root() / "jax"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def _exit(code: int) -> None:
    if jax.distributed.is_initialized():
        # The other processes have been told, and some may wait for calls that never return: no use in JAX's
        # own farewell, which waits for all of them.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
