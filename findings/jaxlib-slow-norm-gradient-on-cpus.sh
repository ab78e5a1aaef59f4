#!/usr/bin/env bash
# jaxlib 0.10.2 on CPUs takes several times as long for a norm's gradient as its own code without a library does.
#
# Behaviour seen: XLA hands products and sums of a program to a library of kernels (in its text they are fusions by the
# name ynn_fusion). A sum alone is faster so. The backward pass of a root-mean-square norm, as jax derives it, becomes
# sums whose inputs are computed in the same fusions, and these take several times as long as where only products go to
# the library (compiler option xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT). The same
# gradient, with both of its sums written as products with vectors, is as fast as either without any option.
#
# Seen, on 2 cores of an Intel Xeon with AVX-512, [1, 1152, 256] in float32 (of [1152, 256] it is not slow), milliseconds by the median of 30 calls:
# derived 4.3 to 5.6, derived with the option 0.61 to 0.70, sums as products 0.72 to 0.93.
#
# Why it matters here: a transformer has five norms a layer and step. With the pass written out
# (coevo_jax/models/rms_norm.py) the quickstart learns 1.2 times as many tokens a second on that machine.
#
# Takes a minute. VENV=folder of an environment that has jax 0.10.2 saves half of it.
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
import time

os.environ["JAX_PLATFORMS"] = "cpu"
import jax
import jax.numpy as jnp
import jaxlib

OPTION = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"}

SHAPE = (1, 1152, 256)


def derived(x, scale, g):
    def norm(x, scale):
        return x * jax.lax.rsqrt(jnp.mean(jnp.square(x), -1, keepdims=True) + 1e-6) * scale

    return jax.vjp(norm, x, scale)[1](g)


def products(x, scale, g):
    inverse = jax.lax.rsqrt(jnp.mean(jnp.square(x), -1, keepdims=True) + 1e-6)
    gx = g * x
    mean = (gx @ scale)[..., None] / x.shape[-1]
    return inverse * (g * scale - x * (jnp.square(inverse) * mean)), jnp.einsum("btd,bt->d", gx, inverse[..., 0])


def milliseconds(f, *arrays, **options):
    f = jax.jit(f, **options)
    jax.block_until_ready(f(*arrays))
    found = []
    for _ in range(30):
        start = time.perf_counter()
        jax.block_until_ready(f(*arrays))
        found.append(1e3 * (time.perf_counter() - start))
    return statistics.median(found)


keys = jax.random.split(jax.random.key(0), 3)
arrays = jax.random.normal(keys[0], SHAPE), jax.random.normal(keys[1], (256,)), jax.random.normal(keys[2], SHAPE)
for one, other in zip(derived(*arrays), products(*arrays), strict=True):
    assert jnp.abs(one - other).max() < 1e-5 * jnp.abs(one).max(), "not the same gradient"
slow = milliseconds(derived, *arrays)
option = milliseconds(derived, *arrays, compiler_options=OPTION)
quick = milliseconds(products, *arrays)
print(f"jaxlib {jaxlib.__version__}: derived {slow:.2f} ms, with the option {option:.2f} ms, sums as products {quick:.2f} ms")
if not (slow > 1.7 * option and slow > 1.7 * quick):
    sys.exit("changed: the derived gradient is no longer much slower")
CHECK
"$venv/bin/python" -W ignore "$folder/check.py"
