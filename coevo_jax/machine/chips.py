"""Published figures of chips, and the machines that can be compiled for: at hand, or only named."""

import contextlib
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
from jax.experimental import topologies

from coevo_jax.config.strict import ConfigError, closest
from coevo_jax.machine.gpus import FRACTION, GPUS, described_gpus, has_gpu_compiler

GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class Chip:
    """What a maker publishes of a chip; memory is what a program may use: a TPU's compiler, or JAX, says so.

    Of a chip that JAX shows as several devices, these are a device's figures.
    """

    name: str
    memory: int  # bytes
    flops: float  # bfloat16 per second, dense
    bandwidth: float  # of its memory, bytes per second
    link: float  # to other chips of the slice or host, bytes per second in one direction, all links together
    source: str
    devices: int = 1  # of JAX, on a chip
    network: float | None = None  # to other slices, or hosts of GPUs, bytes per second; None: not published


_TPU = "https://cloud.google.com/tpu/docs"
_NVIDIA = "https://www.nvidia.com/en-us/data-center"
CHIPS = {
    "TPU v4": Chip(
        name="v4",
        memory=int(30.75 * GIB),
        flops=275e12,
        bandwidth=1200e9,
        link=300e9,
        source=f"{_TPU}/v4",
    ),
    "TPU v5 lite": Chip(
        name="v5e",
        memory=int(15.75 * GIB),
        flops=197e12,
        bandwidth=819e9,
        link=200e9,
        network=6.4e12 / 8 / 256,  # of a pod of 256
        source=f"{_TPU}/v5e",
    ),
    "TPU v5": Chip(
        name="v5p",
        memory=int(95.74 * GIB),
        flops=459e12,
        bandwidth=2765e9,
        link=600e9,
        source=f"{_TPU}/v5p",
    ),
    "TPU v6 lite": Chip(
        name="v6e",
        memory=int(31.25 * GIB),
        flops=918e12,
        bandwidth=1638e9,
        link=400e9,
        network=25.6e12 / 8 / 256,
        source=f"{_TPU}/v6e",
    ),
    "TPU7x": Chip(
        name="tpu7x",
        memory=int(94.75 * GIB),
        flops=2307e12 / 2,
        bandwidth=7380e9 / 2,
        link=600e9 / 2,
        source=f"{_TPU}/tpu7x",
        devices=2,
    ),
    **{
        GPUS[name].kind: Chip(
            name=name,
            memory=int(GPUS[name].memory * FRACTION),
            flops=flops,
            bandwidth=float(GPUS[name].bandwidth),
            link=link,
            source=f"{_NVIDIA}/{page}",
            network=network,
        )
        for name, flops, link, network, page in (  # network: of the maker's own hosts
            ("h100", 989e12, 450e9, 50e9, "h100"),
            ("h200", 989e12, 450e9, 50e9, "h200"),
            ("b200", 2250e12, 900e9, 50e9, "dgx-b200"),
            ("a100", 312e12, 300e9, 25e9, "a100"),
            ("a100-40", 312e12, 300e9, 25e9, "a100"),
        )
    },
}
BY_NAME = {chip.name: chip for chip in CHIPS.values()}
_FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_CUBES = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x16", "8x16x16")
# Slices that the maker lists
TPU_SHAPES = {"v5e": _FLAT, "v6e": _FLAT, "v4": _CUBES, "v5p": _CUBES, "tpu7x": _CUBES}
GPU_COUNTS = ("1", "2", "4", "8", "2x8", "4x8", "8x8", "16x8")  # of one host, or hosts x each


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Devices to compile for, and what is known of each."""

    name: str
    devices: Sequence[Any]
    host: Sequence[Any]  # the devices of one host as the compiler wants them for programs of a host alone
    memory: int  # bytes a device
    chip: Chip | None  # None: no published rates, so no estimate of time
    platform: str  # "tpu", "gpu" or "cpu": what the run would be on
    stand_in: bool = False  # the CPU's compiler stands in for one that needs the machine

    @property
    def hosts(self) -> int:
        return len({device.process_index for device in self.devices})

    def neighbours(self, count: int) -> Sequence[Any]:
        """Devices to compile for what `count` neighbouring chips do alone: of one host, or of whole ones."""
        if count <= len(self.host):
            return self.host
        name = self.name.partition(":")[0]
        if name in GPUS:
            return described_gpus(name, count // len(self.host), len(self.host)).devices
        return _described(name, shape_of(name, count)).devices


def shape_of(chip: str, count: int) -> str:
    """The shape of a slice with so many devices, "4x4" of 16: any power of two that its maker sells."""
    chips = count // BY_NAME[chip].devices
    return next(shape for shape in TPU_SHAPES[chip] if math.prod(map(int, shape.split("x"))) == chips)


def _described(name: str, shape: str, slices: int = 1) -> Any:
    """JAX's description of slices; it has to be told that both TensorCores of a v4 are one device."""
    told: dict[str, Any] = {"chips_per_host_bounds": (1, 1, 1)} if shape == "1x1" else {}
    told |= {"num_slices": slices} if slices > 1 else {}
    if name == "v4":
        told["chip_config_name"] = "megacore"
    return topologies.get_topology_desc(f"{name}:{shape}", platform="tpu", **told)


def find_machine(topology: str | None, slices: int = 1) -> Machine:
    """The machine of a topology such as v5e:4x4 or h100:8; None is this one.

    Args:
      slices: of TPUs, so many of them, which the network of the data centre joins.

    Raises:
      ConfigError: no such chip or slice, or no compiler for it.
    """
    if slices < 1 or (slices > 1 and (topology is None or topology.partition(":")[0] not in TPU_SHAPES)):
        raise ConfigError(
            f"--slices {slices}: found --topology {topology or 'of the devices here'}, expected 1, or more "
            "slices of TPUs such as v5e:4x4"
        )
    if topology is None:
        return _at_hand()
    name, _, shape = topology.partition(":")
    if name not in (*TPU_SHAPES, *BY_NAME):
        known = [*TPU_SHAPES, *(name for name in BY_NAME if name not in TPU_SHAPES)]
        raise ConfigError(
            f"--topology {topology}: no chip '{name}' is known{closest(name, known)}; expected one of "
            f"{', '.join(known)} with a shape, such as v5e:4x4 or h100:8"
        )
    shapes = TPU_SHAPES.get(name, GPU_COUNTS)
    if shape not in shapes:
        raise ConfigError(
            f"--topology {topology}: no slice '{shape}' of {name} exists; there are {', '.join(shapes)}"
        )
    if name in TPU_SHAPES:
        return _tpu_slices(topology, name, shape, slices)
    return _gpu_hosts(topology, name, shape)


def _tpu_slices(topology: str, name: str, shape: str, slices: int) -> Machine:
    # Read when the compiler is loaded: there is no metadata server to ask, no TPU that one process must own.
    os.environ |= {"TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
    os.environ |= {"TPU_STDERR_LOG_LEVEL": "3", "TPU_MIN_LOG_LEVEL": "3"}
    for key, told in (("TPU_ACCELERATOR_TYPE", "v5litepod-4"), ("TPU_WORKER_HOSTNAMES", "localhost")):
        os.environ.setdefault(key, told)  # any will do: it complains where it cannot find out
    jax.config.update("jax_platforms", "cpu")
    try:
        described = _described(name, shape, slices)
    except (RuntimeError, ImportError, NotImplementedError) as error:
        raise ConfigError(
            f"--topology {topology}: the TPU compiler cannot be used ({str(error).splitlines()[0]}); "
            "it comes with requirements-tpu.txt: pip install -r requirements-tpu.txt"
        ) from None
    chip = BY_NAME[name]
    devices = described.devices
    host = [device for device in devices if device.process_index == 0]
    if len(host) < len(devices):
        host = _described(name, shape_of(name, len(host))).devices
    called = topology if slices == 1 else f"{topology} x {slices} slices"
    return Machine(name=called, devices=devices, host=host, memory=chip.memory, chip=chip, platform="tpu")


def is_gpu(topology: str) -> bool:
    """Whether a topology names GPUs."""
    return topology.partition(":")[0] in GPUS


def _gpu_hosts(topology: str, name: str, shape: str) -> Machine:
    """Hosts of GPUs, by XLA's own compiler for them; where it is not installed the CPU's stands in."""
    jax.config.update("jax_platforms", "cpu")
    *hosts, each = map(int, shape.split("x"))
    if not has_gpu_compiler():
        return _stand_in(topology, name, math.prod(hosts) * each)
    try:
        devices = described_gpus(name, math.prod(hosts), each).devices
        host = described_gpus(name, 1, each).devices if hosts else devices
    except (RuntimeError, ImportError, NotImplementedError, ValueError) as error:
        raise ConfigError(
            f"--topology {topology}: the GPU's compiler cannot be used ({str(error).splitlines()[0]}); "
            "it comes with requirements-gpu-compiler.txt, in an environment of its own"
        ) from None
    chip = BY_NAME[name]
    return Machine(name=topology, devices=devices, host=host, memory=chip.memory, chip=chip, platform="gpu")


def _stand_in(topology: str, name: str, count: int) -> Machine:
    """The CPU's devices in place of GPUs."""
    if count > 1:
        with contextlib.suppress(RuntimeError):  # too late where JAX is in use: then it has what it has
            jax.config.update("jax_num_cpu_devices", count)
    chip, devices = BY_NAME[name], jax.devices()
    if len(devices) < count:
        raise ConfigError(
            f"--topology {topology}: needs {count} CPU devices as stand-ins, found {len(devices)}"
        )
    return Machine(
        name=topology,
        devices=devices[:count],
        host=devices[: min(count, 8)],
        memory=chip.memory,
        chip=chip,
        platform="gpu",
        stand_in=True,
    )


def _at_hand() -> Machine:
    devices = jax.devices()
    first = devices[0]
    chip = CHIPS.get(first.device_kind)
    stats = first.memory_stats() or {}
    if first.platform == "cpu":
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // len(devices)
    else:
        memory = stats.get("bytes_limit", chip.memory if chip else 0)
    return Machine(
        name=f"{len(devices)} x {first.device_kind}",
        devices=devices,
        host=jax.local_devices(),
        memory=memory,
        chip=chip,
        platform=first.platform,
    )
