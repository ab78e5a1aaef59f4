"""GPUs that XLA's compiler can compile for where there is none: what it is told of each.

The compiler comes with requirements-gpu-compiler.txt. What it tunes on a card by running it, it guesses here.
"""

import importlib.util
from dataclasses import dataclass
from typing import Any

from jax.experimental import topologies

PLUGIN = "jax_plugins.xla_cuda13"
# Of a card's memory that JAX may take; launch/host.sh says so to JAX, whose own default is three quarters.
FRACTION = 0.92


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """Limits and rates of a card, as its driver reports them."""

    kind: str  # as JAX names it
    capability: tuple[int, int]
    cores: int  # streaming multiprocessors
    fpus: int  # float32 lanes of one
    shared_memory: int  # bytes of one
    shared_memory_of_block: int  # bytes, if asked for
    memory: int  # bytes
    bandwidth: int  # bytes per second
    l2_cache: int  # bytes
    clock: float  # GHz
    links: int  # NVLinks


_HOPPER = {
    "capability": (9, 0),
    "cores": 132,
    "fpus": 128,
    "shared_memory": 233_472,
    "shared_memory_of_block": 232_448,
    "l2_cache": 52_428_800,
    "clock": 1.98,
    "links": 18,
}
_AMPERE = {
    "capability": (8, 0),
    "cores": 108,
    "fpus": 64,
    "shared_memory": 167_936,
    "shared_memory_of_block": 166_912,
    "l2_cache": 41_943_040,
    "clock": 1.41,
    "links": 12,
}
_BLACKWELL = _HOPPER | {"capability": (10, 0), "cores": 148, "l2_cache": 132_644_864, "clock": 1.965}

GPUS: dict[str, Gpu] = {
    "a100-40": Gpu(
        kind="NVIDIA A100-SXM4-40GB", memory=42_331_013_120, bandwidth=1_555_200_000_000, **_AMPERE
    ),
    "a100": Gpu(kind="NVIDIA A100-SXM4-80GB", memory=85_100_068_864, bandwidth=2_039_040_000_000, **_AMPERE),
    "h100": Gpu(kind="NVIDIA H100 80GB HBM3", memory=84_942_979_072, bandwidth=3_352_320_000_000, **_HOPPER),
    "h200": Gpu(kind="NVIDIA H200", memory=151_397_597_184, bandwidth=4_800_000_000_000, **_HOPPER),
    "b200": Gpu(kind="NVIDIA B200", memory=191_514_411_008, bandwidth=7_672_320_000_000, **_BLACKWELL),
}


def has_gpu_compiler() -> bool:
    """Whether the compiler is installed."""
    try:
        return importlib.util.find_spec(PLUGIN) is not None
    except ModuleNotFoundError:  # not even the folder of JAX's plugins
        return False


def described_gpus(name: str, hosts: int, each: int) -> Any:
    """JAX's description of hosts with so many cards of a kind each, of which no process may own one."""
    shape = f"1x{hosts}x{each}"
    return topologies.get_topology_desc(platform="cuda", target_config=target(GPUS[name]), topology=shape)


def target(gpu: Gpu) -> str:
    """The card as the compiler reads it: the text form of a protocol buffer."""
    major, minor = gpu.capability
    # Instructions of this very architecture, such as Hopper's products of a whole group of warps.
    extension = "feature_extension: ACCELERATED_FEATURES" if major >= 9 else ""
    return f"""
gpu_device_info {{
  name: "{gpu.kind}" device_vendor: "NVIDIA Corporation"
  cuda_compute_capability {{ major: {major} minor: {minor} {extension} }}
  core_count: {gpu.cores} fpus_per_core: {gpu.fpus} clock_rate_ghz: {gpu.clock}
  threads_per_warp: 32 threads_per_block_limit: 1024 threads_per_core_limit: 2048
  thread_dim_limit_x: 1024 thread_dim_limit_y: 1024 thread_dim_limit_z: 64
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  shared_memory_per_block: 49152 shared_memory_per_core: {gpu.shared_memory}
  shared_memory_per_block_optin: {gpu.shared_memory_of_block}
  memory_bandwidth: {gpu.bandwidth} l2_cache_size: {gpu.l2_cache} device_memory_size: {gpu.memory}
  device_address_bits: 64 device_interconnect_info {{ active_links: {gpu.links} }}
  driver_version: "13.0.0" runtime_version: "13.0.0" compile_time_toolkit_version: "13.0.0"
  dnn_version: "9.10.0"
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 patch: 0 }}
runtime_version {{ major: 13 minor: 0 patch: 0 }}
device_description_str: "{gpu.kind}"
"""
