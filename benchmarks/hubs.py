"""Turns per second of environments from hubs, beside the bare thing.

python -m benchmarks.hubs textarena GuessTheNumber-v0 Mastermind-v0 FrozenLake-v0
python -m benchmarks.hubs openenv ws://localhost:8000 --slots 8 --action '{"message": "hello"}'

textarena: the environment in this process, one thread, beside the game as `textarena.make` gives it, with
the same moves. openenv: slots of a pool, as roll-outs have them, beside clients that do nothing but send an
action and wait for the answer. Each is measured several times in turn; the best counts, for other programs
only slow things down.
"""

import argparse
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from coevo_jax.envs.env import Env, Task
from coevo_jax.envs.pool import EnvPool
from coevo_jax.envs.registry import make_env

TIMES = 5  # measurements of each side
Rate = Callable[[float], float]  # of so many seconds: turns per second


def own_games(env: Env, moves: dict[str, list[str]], tasks: list[Task]) -> Rate:
    """Episodes of the environment, one after the other."""

    def rate(seconds: float) -> float:
        turns, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            for task in tasks:
                env.reset(task)
                for move in moves[task.id]:
                    turns += 1
                    if env.step(move).done:
                        break
        return turns / (time.perf_counter() - start)

    return rate


def bare_games(moves: dict[str, list[str]], tasks: list[Task]) -> Rate:
    """The same moves in the games as they come, made once and reset with the seeds."""
    import textarena  # pyright: ignore[reportMissingImports]

    games = {task.family: textarena.make(task.family) for task in tasks}

    def rate(seconds: float) -> float:
        turns, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            for task in tasks:
                game = games[task.family]
                game.reset(num_players=1, seed=int(task.id.rpartition("/")[2]))
                game.get_observation()
                for move in moves[task.id]:
                    turns += 1
                    done, _ = game.step(action=move)
                    if done:
                        break
                    game.get_observation()
        return turns / (time.perf_counter() - start)

    return rate


def pooled(url: str, slots: int, workers: int, action: str) -> Rate:
    """Slots of a pool, each with its next step as soon as the last one is answered."""
    make = make_env("openenv", {"url": url, "max_turns": 10**9, "action": "record"})

    def rate(seconds: float) -> float:
        with EnvPool(make, workers=workers, step_timeout=30.0) as pool:
            tasks = make().tasks("train")
            for slot in range(slots):
                pool.submit(slot, lambda env, slot=slot: env.reset(tasks[slot]))
            pool.wait()
            turns, start = 0, time.perf_counter()
            for slot in range(slots):
                pool.submit(slot, lambda env: env.step(action))
            while time.perf_counter() - start < seconds:
                for slot, outcome in pool.ready(range(slots), wait=True).items():
                    if isinstance(outcome, Exception):
                        raise outcome
                    turns += 1
                    pool.submit(slot, lambda env: env.step(action))
            spent = time.perf_counter() - start
            pool.wait()
        return turns / spent

    return rate


def bare_sockets(url: str, clients: int, action: str) -> Rate:
    """Clients in threads that send and wait."""
    from websockets.sync.client import connect

    message = json.dumps({"type": "step", "data": json.loads(action)})

    def one(seconds: float) -> int:
        with connect(f"{url}/ws", compression=None, ping_interval=None, proxy=None) as socket:
            socket.send('{"type": "reset", "data": {}}')
            socket.recv()
            turns, start = 0, time.perf_counter()
            while time.perf_counter() - start < seconds:
                socket.send(message)
                socket.recv()
                turns += 1
        return turns

    def rate(seconds: float) -> float:
        with ThreadPoolExecutor(clients) as threads:
            return sum(threads.map(one, [seconds] * clients)) / seconds

    return rate


def compare(what: str, sides: dict[str, Rate], seconds: float) -> None:
    """Measure both sides in turn, and print the best of each."""
    best = dict.fromkeys(sides, 0.0)
    for _ in range(TIMES):
        for name, rate in sides.items():
            best[name] = max(best[name], rate(seconds))
    own, bare = best.values()
    numbers = ", ".join(f"{name} {rate:,.0f}" for name, rate in best.items())
    print(f"{what}: turns/s {numbers}, {own / bare:.0%}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("hub", choices=("textarena", "openenv"))
    parser.add_argument("what", nargs="+", help="games, or the server's url")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--action", default='{"message": "hello"}')
    args = parser.parse_args()
    if args.hub == "openenv":
        [url] = args.what
        sides = {
            "here": pooled(url, args.slots, args.workers, args.action),
            "bare": bare_sockets(url, args.slots, args.action),
        }
        compare(f"openenv, {args.slots} slots, {args.workers} workers", sides, args.seconds)
        return
    for game in args.what:
        env = make_env("textarena", {"games": [game], "train_tasks": 20})()
        tasks, rng = list(env.tasks("train")), np.random.default_rng([0])
        moves = {task.id: [env.tries(task, rng) for _ in range(30)] for task in tasks}  # pyright: ignore
        sides = {"here": own_games(env, moves, tasks), "bare": bare_games(moves, tasks)}
        compare(game, sides, args.seconds)


if __name__ == "__main__":
    main()
