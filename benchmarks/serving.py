"""Tokens a second of `launch.serve` beside the bare engine, with 1 and with 8 requests under way.

python -m benchmarks.serving runs/quickstart --write-table      into docs/serving.md

Both write texts of the same length with the same slots, weights and programs, in turn; the clients are a
process of their own. Nothing ends a text early.
"""

import argparse
import http.client
import json
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit

import jax
import numpy as np

from benchmarks.methods import write_table
from coevo_jax.report.markdown import table
from coevo_jax.run_folder.environment import cores, cpu
from coevo_jax.sampling.draw import Filters, SlotSampling
from coevo_jax.sampling.engine import Request
from coevo_jax.stored.serve import ServedAgent, load_served, serve

SLOTS = 8
PROMPT = 32  # tokens
UNDER_WAY = (1, 8)
COLUMNS = ("requests under way", "bare engine, tokens/s", "served whole", "served as a stream", "share")


def bare(served: ServedAgent, texts: int, length: int, under_way: int) -> float:
    """Tokens a second of the engine alone, whose slots are always taken."""
    engine, weights = served.engine, served.weights
    engine.reset()
    root, slots = jax.random.key(0), engine.slots
    plain: Any = (np.ones(slots, np.float32), np.zeros(slots, np.int32), np.ones(slots, np.float32))
    chosen = Filters(*plain, np.zeros(slots, np.float32))  # pyright: ignore[reportArgumentType]
    sampling = SlotSampling(root=root, chosen=chosen)
    started, written = time.monotonic(), 0
    for first in range(0, texts, under_way):
        prompts = {slot: prompt(first + slot) for slot in range(under_way)}
        engine.prefill(weights, prompts, frozenset(prompts))
        left = dict.fromkeys(prompts, length)
        while left:
            requests = {slot: Request(budget=n, ids=(first + slot, 0, 0, 0)) for slot, n in left.items()}
            for slot, one in engine.decode(weights, requests, sampling, quota=under_way).fetch().items():
                written += len(one.tokens)
                left[slot] -= len(one.tokens)
            left = {slot: n for slot, n in left.items() if n}
    return written / (time.monotonic() - started)


def prompt(number: int) -> np.ndarray:
    """A prompt like no other."""
    return np.random.default_rng([number]).integers(5, 250, PROMPT).astype(np.int32)


def ask(url: str, texts: int, length: int, under_way: int, stream: bool) -> float:
    """Tokens a second that clients get, each on a connection of its own."""
    parts = urlsplit(url)

    def one(number: int) -> int:
        body: dict[str, Any] = {"prompt": prompt(number).tolist(), "max_tokens": length, "seed": number}
        body |= {"stream": stream, "logprobs": 0, "return_token_ids": True}
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=600)
        connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
        raw = connection.getresponse().read().decode()
        connection.close()
        if not stream:
            return len(json.loads(raw)["choices"][0]["token_ids"])
        events = [line[6:] for line in raw.splitlines() if line.startswith("data: {")]
        return sum(len(json.loads(event)["choices"][0]["token_ids"]) for event in events)

    with ThreadPoolExecutor(under_way) as threads:
        started = time.monotonic()
        written = sum(threads.map(one, range(texts)))
        return written / (time.monotonic() - started)


def asked_elsewhere(url: str, texts: int, length: int, under_way: int, stream: bool) -> float:
    """The same from a process of its own."""
    words = [url, str(texts), str(length), str(under_way), str(int(stream))]
    command = [sys.executable, "-m", "benchmarks.serving", "--client", *words]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def measure(served: ServedAgent, length: int, rounds: int) -> list[tuple[str, ...]]:
    """A row of the table for each number of requests under way."""
    ended, ready = threading.Event(), threading.Event()
    urls: list[str] = []

    def say(server: Any, service: Any) -> None:
        urls.append(server.url)
        ready.set()

    rows = []
    for under_way in UNDER_WAY:
        texts = 4 * under_way
        found: dict[str, list[float]] = {"bare": [], "whole": [], "stream": []}
        for number in range(rounds + 1):  # the first compiles
            ended.clear()
            ready.clear()
            urls.clear()
            alone = bare(served, texts, length, under_way)
            options = {"name": "measured", "host": "127.0.0.1", "port": 0, "most_waiting": 64}
            options |= {"asked": ended.is_set, "ready": say}
            thread = threading.Thread(target=serve, args=(served,), kwargs=options)
            thread.start()
            ready.wait()
            took = [asked_elsewhere(urls[0], texts, length, under_way, stream) for stream in (False, True)]
            ended.set()
            thread.join()
            if number:
                for name, value in zip(found, (alone, *took), strict=True):
                    found[name].append(value)
        middle = {name: median(values) for name, values in found.items()}
        spread = [f"{middle[name]:,.0f} ({min(v):,.0f}–{max(v):,.0f})" for name, v in found.items()]
        rows.append((str(under_way), *spread, f"{middle['whole'] / middle['bare']:.0%}"))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__)
    parser.add_argument("run", nargs="?", type=Path, help="folder of a finished run")
    parser.add_argument("--agent", default="target")
    parser.add_argument("--length", type=int, default=200, help="tokens of a text (default: 200)")
    parser.add_argument("--rounds", type=int, default=3, help="timed rounds (default: 3)")
    parser.add_argument("--write-table", action="store_true", help="write docs/serving.md's table")
    parser.add_argument("--note", default="", help="words about the machine, for the table")
    parser.add_argument("--client", nargs=5, metavar="WORD", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.client:
        url, *numbers = args.client
        texts, length, under_way, stream = map(int, numbers)
        print(ask(url, texts, length, under_way, bool(stream)))
        return
    if args.run is None:
        parser.error("give the folder of a run")
    served = load_served(args.run, agent=args.agent, slots=SLOTS)
    served.engine.end_id = -1
    rows = measure(served, args.length, args.rounds)
    model, machine = served.config.model, f"{cpu()}, {cores()} threads"
    sizes = f"hidden {model.hidden_size}, {model.num_layers} layers, vocabulary {served.limits.vocab_size}"
    words = (
        f"{SLOTS} slots, prompts of {PROMPT} tokens, texts of {args.length}, temperature 1, blocks of "
        f"{served.config.rollout.decode_block} tokens; {sizes}. Median (least–most) of {args.rounds} rounds "
        f"in turn; share: served whole over the bare engine. jax {jax.__version__} on "
        f"{jax.default_backend()}; {machine}{args.note and '; '}{args.note}."
    )
    text = f"{table(COLUMNS, rows)}\n\n{words}"
    if args.write_table:
        write_table("serving", text)
    print(text)


if __name__ == "__main__":
    main()
