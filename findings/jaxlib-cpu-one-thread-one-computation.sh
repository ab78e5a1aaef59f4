#!/usr/bin/env bash
# jaxlib 0.10.2 on CPUs: of two computations that share nothing, started by one thread, the second waits for the first.
#
# Behaviour seen: dispatch is asynchronous, a call returns before its result is there, and on an accelerator two
# independent programs at most share the device. On CPUs one would expect two cores to work on two such programs, each
# of which keeps one core busy. They do so only if two threads of the host start them: what one thread starts runs in
# the order in which it was started.
#
# Seen, on 2 cores of an Intel Xeon, two calls of a loop of products [32, 128] by [128, 128], which keeps one core busy
# (37 ms), by the median of 15 pairs: one thread 2.0 times as long as a single call, two threads 1.1 times. (Of products
# of [4, 64] by [64, 64], a thousandth of a millisecond each, two threads take 1.8 times as long: they disturb each other.)
#
# Why it matters here: a roll-out loop that serves two engines from one thread, in the belief that one decodes while
# the other does, leaves half of a small CPU idle. With a thread for each (coevo_jax/rollout/joining.py) roll-outs on
# two cores take about half the time.
#
# Takes a minute, and needs 2 idle cores. VENV=folder of an environment that has jax 0.10.2 saves half of it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
venv="${VENV:-$folder/venv}"
if [[ ! -x "$venv/bin/python" ]]; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet jax==0.10.2 jaxlib==0.10.2
fi
cat >"$folder/check.py" <<'CHECK'
import os
import statistics
import sys
import threading
import time

os.environ["JAX_PLATFORMS"] = "cpu"
import jax
import jax.numpy as jnp
import jaxlib

if len(os.sched_getaffinity(0)) < 2:
    sys.exit("needs 2 cores")


@jax.jit
def busy(x, w):
    return jax.lax.fori_loop(0, 4000, lambda _, x: jnp.tanh(x @ w), x)


def seconds(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


keys = jax.random.split(jax.random.key(0), 4)
one = jax.random.normal(keys[0], (32, 128)), jax.random.normal(keys[1], (128, 128))
two = jax.random.normal(keys[2], (32, 128)), jax.random.normal(keys[3], (128, 128))
jax.block_until_ready((busy(*one), busy(*two)))


def by_threads():
    threads = [threading.Thread(target=lambda own=own: busy(*own).block_until_ready()) for own in (one, two)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


single, together, threads, dispatch = [], [], [], []
for _ in range(15):
    single.append(seconds(lambda: busy(*one).block_until_ready()))
    dispatch.append(seconds(lambda: busy(*one)) / single[-1])
    jax.block_until_ready(busy(*one))
    together.append(seconds(lambda: jax.block_until_ready((busy(*one), busy(*two)))) / single[-1])
    threads.append(seconds(by_threads) / single[-1])
found = [statistics.median(part) for part in (dispatch, together, threads)]
print(
    f"jaxlib {jaxlib.__version__}: a call of {1e3 * statistics.median(single):.1f} ms returns after {found[0]:.2f} of "
    f"its time; two calls of one thread take {found[1]:.2f} times as long as one, of two threads {found[2]:.2f} times"
)
if not (found[1] > 1.6 and found[2] < 1.4):
    sys.exit("changed: calls of one thread run side by side, or those of two do not")
CHECK
"$venv/bin/python" -W ignore "$folder/check.py"
