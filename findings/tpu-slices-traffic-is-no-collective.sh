#!/usr/bin/env bash
# What TPUs of several slices send each other over the network stands in no collective of the compiled program.
#
# Versions: jax 0.10.2, libtpu 0.0.42.1; compiled for two slices of four v5e chips, on a machine without a TPU.
#
# Behaviour seen: a sum over all eight chips becomes collectives over the four chips of a slice, and a pair of host
# transfers (send and recv with is_host_transfer=true, handled by xla_megascale_runtime) for the rest. The shapes
# there are a chip's own part.
#
# Why it matters here: who counts collectives to say what a step sends finds none of the slowest traffic there is. launch.compile --slices counts host transfers as a kind of their own, at the
# published rate of the network (coevo_jax/preflight/collectives.py).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet jax==0.10.2 libtpu==0.0.42.1
export JAX_PLATFORMS=cpu TPU_SKIP_MDS_QUERY=1 TPU_ACCELERATOR_TYPE=v5litepod-4 TPU_WORKER_HOSTNAMES=localhost
export TPU_STDERR_LOG_LEVEL=3 TPU_MIN_LOG_LEVEL=3
"$folder/venv/bin/python" - <<'CHECK'
import re
from importlib.metadata import version

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

described = topologies.get_topology_desc("v5e:2x2", platform="tpu", num_slices=2)
mesh = Mesh(np.array(described.devices).reshape(2, 4), ("slices", "chips"))
split = NamedSharding(mesh, PartitionSpec(("slices", "chips")))
x = jax.ShapeDtypeStruct((1024, 512), jnp.float32, sharding=split)
whole = NamedSharding(mesh, PartitionSpec())
text = jax.jit(lambda x: x.T @ x, out_shardings=whole).lower(x).compile().as_text()

collectives = re.findall(r"= \S+ (all-reduce|all-gather|reduce-scatter)\(.*?replica_groups=(\S+),", text)
sent = re.findall(r"= \((\S+), .* (send)\(.*is_host_transfer=true", text)
print("versions      ", "jax", version("jax"), "libtpu", version("libtpu"))
print("slices        ", sorted({device.slice_index for device in described.devices}))
print("collectives   ", collectives)
print("host transfers", sent)
assert collectives and sent
for _, groups in collectives:  # none goes over more than the four chips of a slice
    assert all(len(group.split(",")) <= 4 for group in re.findall(r"\{([\d,]+)\}", groups)), groups
CHECK
