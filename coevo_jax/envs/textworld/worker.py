"""A program of its own that plays and makes TextWorld games, driven by lines of JSON.

It runs in a process of its own, so that a game that hangs or crashes its interpreter takes nothing with it,
and so that TextWorld's imports, warnings and global random state stay out of the main process.

A request is `{"call": name, ...}`, its answer `{"result": ...}` or `{"error": words}`; see CALLS.
"""

import json
import os
import resource
import sys
from typing import Any

from coevo_jax.envs.textworld.making import make_game
from coevo_jax.envs.textworld.playing import load, plan, step

MEMORY_BYTES = 4 << 30  # of address space; a running game needs 70 MB


CALLS = {"load": load, "step": step, "plan": plan, "make": lambda engines, request: make_game(request)}


def serve() -> None:
    """Answer requests until the input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print must not reach the answers
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = MEMORY_BYTES if hard == resource.RLIM_INFINITY else min(MEMORY_BYTES, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    engines: dict[str, Any] = {}
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {"result": CALLS[request["call"]](engines, request)}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    serve()
