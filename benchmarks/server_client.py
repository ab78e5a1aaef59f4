"""What exploring through a server costs the process that asks it: python -m benchmarks.server_client

A server of the standard library, in a process of its own, answers every request at once with as many tokens
as it asks for. The engine that writes through it (`rollout.server_engine`) keeps so many requests under way.
Printed are the asking process's CPU milliseconds, all threads, over the tokens that came back: medians over
repeats, with the least and the most. The goal is at most 0.3 with 32 requests under way.

    --requests 1 8 32     under way
    --prompt 1000         tokens that a turn begins behind, all sent anew with each request
    --turn 32             tokens that are written in a turn
    --turns 20            of every slot
    --repeats 5
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import numpy as np

from coevo_jax.config.options import RolloutConfig
from coevo_jax.rollout.endpoint import Endpoint, Served
from coevo_jax.rollout.server_engine import ServerEngine
from coevo_jax.sampling.engine import Request, Sampling

VOCABULARY, END = 32_000, 2
SAMPLING = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0}


class Handler(BaseHTTPRequestHandler):
    """Writes the same token again and again."""

    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        return

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        count = body["max_tokens"]
        logprobs = {"tokens": ["?"] * count, "token_logprobs": [-1.25] * count, "top_logprobs": []}
        choice = {"index": 0, "text": "?" * count, "finish_reason": "length", "logprobs": logprobs}
        choice |= {"token_ids": [17] * count, "prompt_token_ids": body["prompt"]}
        raw = json.dumps({"object": "text_completion", "choices": [choice]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


def serve() -> None:
    """Serve until the standard input ends; the port is printed first."""
    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_port, flush=True)
    sys.stdin.read()


def cost(url: str, requests: int, prompt: int, turn: int, turns: int) -> float:
    """CPU milliseconds of this process for each token that came back."""
    longest = prompt + turns * (turn + 1) + 1
    config = RolloutConfig(slots=requests, max_tokens=longest, max_turn_tokens=turn, joining="as_ready")
    engine = ServerEngine(config, end_id=END, vocab_size=VOCABULARY)
    served = Served(endpoint=Endpoint(url=url, timeout=60.0), model="base")
    sampling = Sampling(root=jax.random.key(0), **SAMPLING)
    text, left, written = np.arange(prompt, dtype=np.int32), dict.fromkeys(range(requests), turns), 0
    began = os.times()
    engine.begin(served)
    engine.prefill(served, dict.fromkeys(range(requests), text), frozenset(range(requests)))
    while left:
        asked = {slot: Request(budget=turn, ids=(0, slot, 0, left[slot])) for slot in left}
        for slot, answer in engine.decode(served, asked, sampling, quota=1).fetch().items():
            written += len(answer.tokens)
            left[slot] -= 1
            if left[slot]:
                engine.prefill(served, {slot: np.array([5], np.int32)}, frozenset())  # an observation
            else:
                del left[slot]
    ended = os.times()
    engine.close()
    return 1000 * (ended.user + ended.system - began.user - began.system) / written


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.server_client",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--requests", type=int, nargs="+", default=[1, 8, 32])
    for name, default in (("prompt", 1000), ("turn", 32), ("turns", 20), ("repeats", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args(argv)
    child = subprocess.Popen(
        [sys.executable, "-c", "from benchmarks.server_client import serve; serve()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdin is not None and child.stdout is not None
    try:
        url = f"http://127.0.0.1:{int(child.stdout.readline())}/v1"
        sizes = (args.prompt, args.turn, args.turns)
        cost(url, 1, *sizes)  # imports and first connections
        found: dict[int, list[float]] = {count: [] for count in args.requests}
        for _ in range(args.repeats):
            for count, costs in found.items():
                costs.append(cost(url, count, *sizes))
    finally:
        child.stdin.close()
        child.wait()
    for count, costs in found.items():
        middle, least, most = statistics.median(costs), min(costs), max(costs)
        print(f"{count:>3} requests under way: {middle:.3f} CPU ms a token ({least:.3f} to {most:.3f})")


if __name__ == "__main__":
    main()
