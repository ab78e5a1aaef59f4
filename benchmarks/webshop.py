"""Cost of a WebShop step and of building its world: python -m benchmarks.webshop [products]."""

import resource
import sys
import time
from collections import defaultdict

import numpy as np

from coevo_jax.envs.webshop.environment import make_webshop
from coevo_jax.envs.webshop.options import WebShopOptions
from coevo_jax.envs.webshop.shop import open_world

PRODUCTS = 12_000
EPISODES = 400


def _megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(products: int) -> None:
    """Print build time, memory and step times in milliseconds by kind of action."""
    options = WebShopOptions(products=products)
    before, start = _megabytes(), time.perf_counter()
    env = make_webshop(options)
    print(
        f"{products} products: built in {time.perf_counter() - start:.2f} s, {_megabytes() - before:.0f} MB"
    )
    world = open_world(options)
    print(f"index: {world.index.nbytes / 2**20:.1f} MB, {len(world.index.terms)} terms")
    start = time.perf_counter()
    make_webshop(options)
    print(f"a further instance: {(time.perf_counter() - start) * 1000:.2f} ms")

    tasks = env.tasks("train")[:EPISODES]
    start = time.perf_counter()
    experts = [env.expert(task) for task in tasks]
    print(f"expert: {(time.perf_counter() - start) / len(tasks) * 1000:.2f} ms")
    times: dict[str, list[float]] = defaultdict(list)
    for task, expert in zip(tasks, experts, strict=True):
        env.reset(task)
        for turn in expert.turns if expert else ():
            start = time.perf_counter()
            result = env.step(turn.action)
            kind = "buy" if result.done else turn.action.partition("[")[0]
            times[kind].append((time.perf_counter() - start) * 1000)
    times["all"] = [one for values in list(times.values()) for one in values]
    for kind, values in times.items():
        mean, high, most = np.mean(values), np.percentile(values, 99), max(values)
        print(f"{kind:>7}: {len(values):5} steps, mean {mean:.3f} ms, 99% {high:.3f} ms, most {most:.3f} ms")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else PRODUCTS)
