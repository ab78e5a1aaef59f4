#!/usr/bin/env bash
# jax 0.10.2 takes a seed of up to 64 bits and, unless 64-bit types are enabled, uses the last 32 of it: no error, no
# warning.
#
# Behaviour seen: jax.random.key(2**32 + 7) is jax.random.key(7), and jax.random.key(2**40) is jax.random.key(0).
#
# Why it matters here: two runs with seeds such as a clock's nanoseconds may be one and the same run in all that JAX
# draws, and their spread over seeds too small. A config's seed is refused from 2**32 on.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet jax==0.10.2 jaxlib==0.10.2
cd "$folder"
JAX_PLATFORMS=cpu "$folder/venv/bin/python" -W error - <<'CHECK'
import jax

data = lambda seed: jax.random.key_data(jax.random.key(seed)).tolist()
print(jax.__version__, data(7), data(2**32 + 7), data(0), data(2**40))
assert data(2**32 + 7) == data(7) and data(2**40) == data(0), "seeds of more than 32 bits are told apart now"
assert data(2**32 - 1) != data(2**31 - 1)
CHECK
