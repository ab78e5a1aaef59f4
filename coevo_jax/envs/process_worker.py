"""The child of `envs.process`: `python -m coevo_jax.envs.process_worker FILE_DESCRIPTOR MEMORY_MIB`.

Makes one environment and answers calls until the other end of its pipe is closed.
"""

import os
import pickle
import resource
import sys
from multiprocessing.connection import Connection
from typing import Any

from coevo_jax.config.strict import ConfigError
from coevo_jax.envs.env import Env, EnvFault, can_restore
from coevo_jax.envs.wire import from_bytes, plain, to_bytes

MIB = 2**20


def main(descriptor: int, memory_mib: int) -> None:
    """Serve an environment's calls over an inherited pipe until it closes."""
    # Of data, not of addresses: a Java runtime reserves many times what it uses.
    resource.setrlimit(resource.RLIMIT_DATA, (memory_mib * MIB, memory_mib * MIB))
    os.set_inheritable(descriptor, False)  # not for what the environment starts
    pipe, env = Connection(descriptor), None
    try:
        env = _made(pipe)
        while env is not None:
            method, arguments = from_bytes(pipe.recv_bytes())
            _answer(pipe, lambda: _called(env, method, arguments))  # noqa: B023 (called at once)
    except (EOFError, OSError):
        return  # the parent closed its end
    finally:
        if env is not None:
            env.close()


def _called(env: Any, method: str, arguments: Any) -> Any:
    """A method's answer; states leave and come back as bytes, which nobody else reads."""
    if method == "restore":
        task, state = arguments
        return env.restore(task, pickle.loads(state))
    found = getattr(env, method)(*arguments)
    return pickle.dumps(found) if method == "snapshot" and found is not None else found


def _made(pipe: Connection) -> Env | None:
    env: Env | None = None

    def make() -> dict[str, Any]:
        nonlocal env
        env = made = pickle.loads(pipe_message)()
        return {
            "name": made.name,
            "system_prompt": made.system_prompt,
            "deterministic": made.deterministic,
            "restores": can_restore(made),
        }

    pipe_message = pipe.recv_bytes()
    _answer(pipe, make)
    return env


def _answer(pipe: Connection, function: Any) -> None:
    try:
        answer = ("value", plain(function()))
    except ConfigError as error:
        answer = ("config", str(error))
    except EnvFault as error:
        answer = ("fault", str(error))
    except (Exception, SystemExit) as error:
        answer = ("fault", f"{type(error).__name__}: {error}")
    pipe.send_bytes(to_bytes(answer))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
