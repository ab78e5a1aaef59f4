"""What every command shares: how errors reach the user."""

import errno
import os
import signal
import sys
from collections.abc import Callable, Sequence

import jax

from coevo_jax.files import cache_root
from coevo_jax.optimize import LearningDiverged
from coevo_jax.stopping import Stopped
from coevo_jax.strict import ConfigError

USER_ERROR = 2  # what was given cannot be used
FAILURE = 1  # it could, but the work broke off; the run can be resumed
SIGNALLED = 128  # plus the signal's number, as shells have it: it ended because it was asked to


def run_command(main: Callable[[Sequence[str]], None]) -> None:
    """Run a command's `main(argv)`; a user's error is one clear message and exit code 2, no traceback."""
    use_compilation_cache()
    try:
        main(sys.argv[1:])
    except ConfigError as error:
        _exit(USER_ERROR, str(error))
    except LearningDiverged as error:
        _exit(FAILURE, str(error))
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
            raise
        where = f" ({error.filename})" if error.filename else ""
        _exit(
            USER_ERROR,
            f"cannot write{where}: {os.strerror(error.errno)}; what was committed is intact: make room and "
            "continue with --resume",
        )
    except Stopped as stop:
        _exit(SIGNALLED + stop.signum, f"{stop}; what is done is committed: continue with --resume")
    except KeyboardInterrupt:
        _exit(SIGNALLED + signal.SIGINT, "interrupted; continue with --resume")


def use_compilation_cache() -> None:
    """Keep compiled programs between processes, in $COEVO_CACHE/jax or ~/.cache/coevo_jax/jax.

    $JAX_COMPILATION_CACHE_DIR, where it is set, stays in force.
    """
    if os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return
    jax.config.update("jax_compilation_cache_dir", str(cache_root() / "jax"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def _exit(code: int, message: str) -> None:
    sys.stdout.flush()
    print(message if code > SIGNALLED else f"error: {message}", file=sys.stderr)
    sys.exit(code)
