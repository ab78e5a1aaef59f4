#!/usr/bin/env bash
# XLA's compiler for GPUs, without one, compiles a program that is larger than the card.
#
# Versions: jax 0.10.2 with jax-cuda13-plugin and jax-cuda13-pjrt 0.10.2 (402 MB), compiled for an H100 of 80 GB.
#
# Behaviour seen: a program with 200 GiB of arguments and as much of results is compiled, though the description of
# the card names its memory; one line of the log calls the size of the arguments an error in the calculation.
# memory_analysis() has the true figures. The compiler for TPUs ends with RESOURCE_EXHAUSTED there. cost_analysis()
# is None, where the CPU's and the TPU's compilers count operations.
#
# Why it matters here: "it compiles" proves nothing about a GPU's memory. launch.compile compares every program's
# own bytes, and what lies beside it, with what JAX may take of the card (coevo_jax/preflight/fits.py), and counts
# operations from the model's shapes (coevo_jax/machine/costs.py).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet jax==0.10.2
"$folder/venv/bin/pip" install --quiet --no-deps jax-cuda13-plugin==0.10.2 jax-cuda13-pjrt==0.10.2
JAX_PLATFORMS=cpu "$folder/venv/bin/python" - <<'CHECK'
from importlib.metadata import version

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

CARD = """
gpu_device_info {
  name: "NVIDIA H100 80GB HBM3" device_vendor: "NVIDIA Corporation"
  cuda_compute_capability { major: 9 minor: 0 feature_extension: ACCELERATED_FEATURES }
  core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98
  threads_per_warp: 32 threads_per_block_limit: 1024 threads_per_core_limit: 2048
  thread_dim_limit_x: 1024 thread_dim_limit_y: 1024 thread_dim_limit_z: 64
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  shared_memory_per_block: 49152 shared_memory_per_core: 233472 shared_memory_per_block_optin: 232448
  memory_bandwidth: 3352320000000 l2_cache_size: 52428800 device_memory_size: 84942979072
  device_address_bits: 64 dnn_version: "9.10.0"
  driver_version: "13.0.0" runtime_version: "13.0.0" compile_time_toolkit_version: "13.0.0"
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 patch: 0 }
runtime_version { major: 13 minor: 0 patch: 0 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""
(device,) = topologies.get_topology_desc(platform="cuda", target_config=CARD, topology="1x1x1").devices
large = jax.ShapeDtypeStruct((50 * 2**30,), jnp.float32, sharding=SingleDeviceSharding(device))
compiled = jax.jit(lambda x: x * 2).lower(large).compile()
memory = compiled.memory_analysis()
print("versions      ", "jax", version("jax"), "jax-cuda13-pjrt", version("jax-cuda13-pjrt"))
print("device        ", device.device_kind, "compute capability", device.compute_capability)
print("arguments, GiB", memory.argument_size_in_bytes / 2**30)
print("results, GiB  ", memory.output_size_in_bytes / 2**30)
print("cost_analysis ", compiled.cost_analysis())
assert memory.argument_size_in_bytes == 200 * 2**30 > 84942979072
assert compiled.cost_analysis() is None
CHECK
