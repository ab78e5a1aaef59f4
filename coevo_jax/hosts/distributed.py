"""The processes of a run that has several: who they are, and how they find each other.

One process per host. A launcher names them with COEVO_COORDINATOR, COEVO_PROCESSES and COEVO_PROCESS_ID, of
which the first is enough inside a SLURM step, or leaves it to JAX: inside a SLURM step, on GKE's TPU slices,
and wherever COEVO_CLUSTER names one of JAX's detectors.
"""

import os
import sys
from collections.abc import Mapping
from typing import Any

from coevo_jax.config.strict import ConfigError, nearest

EXPLICIT = ("COEVO_COORDINATOR", "COEVO_PROCESSES", "COEVO_PROCESS_ID")
CLUSTERS = ("gcetpu", "gketpu", "slurm")  # JAX's detectors, by the names that jax.distributed gives them
START_TIMEOUT = 300  # seconds that a process waits for the others


def joins_others(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the environment says, rightly or not, that this process has others to join."""
    named = any(environment.get(name) for name in (*EXPLICIT, "COEVO_CLUSTER"))
    return named or _detected(environment) is not None


def start_distributed(environment: Mapping[str, str] = os.environ) -> None:
    """Join the other processes of this run, where the environment says that there are any.

    Called once, before anything touches a device. A process of its own joins nobody. Where
    the others do not come within START_TIMEOUT, JAX ends the process (SIGABRT).

    Raises:
      ConfigError: the variables are incomplete, are no numbers, do not fit each other, or name a cluster that
        JAX does not find.
    """
    named = _named(environment)
    cluster = environment.get("COEVO_CLUSTER") or _detected(environment)
    if named:
        coordinator, processes, process = _explicit(named)
        if processes > 1:
            _join(
                coordinator_address=coordinator,
                num_processes=processes,
                process_id=process,
                cluster_detection_method="deactivate",  # under SLURM it would leave each process one GPU
            )
    elif cluster in CLUSTERS:
        _join(cluster_detection_method=cluster)
    elif cluster:
        raise ConfigError(f"COEVO_CLUSTER: unknown cluster '{cluster}'{nearest(cluster, list(CLUSTERS))}")


def _named(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that name the processes; SLURM tells each task which one it is."""
    named = {name: environment[name] for name in EXPLICIT if environment.get(name)}
    if list(named) == ["COEVO_COORDINATOR"] and environment.get("SLURM_STEP_NUM_TASKS"):
        named["COEVO_PROCESSES"] = environment["SLURM_STEP_NUM_TASKS"]
        named["COEVO_PROCESS_ID"] = environment.get("SLURM_PROCID", "")
    return named


def _detected(environment: Mapping[str, str]) -> str | None:
    """JAX's detector for this environment, where that alone shows several processes."""
    if int(environment.get("SLURM_STEP_NUM_TASKS") or 1) > 1:  # of the step: an allocation may be larger
        return "slurm"
    hosts = environment.get("TPU_PROCESS_ADDRESSES") or environment.get("TPU_WORKER_HOSTNAMES") or ""
    return "gketpu" if "," in hosts else None


def _explicit(named: Mapping[str, str]) -> tuple[str, int, int]:
    missing = [name for name in EXPLICIT if name not in named]
    if missing:
        raise ConfigError(
            f"{' and '.join(missing)}: not set, although {' and '.join(named)} is; set all three"
        )
    host, _, port = named["COEVO_COORDINATOR"].rpartition(":")
    if not host or not port.isdecimal():
        raise ConfigError(
            f"COEVO_COORDINATOR: found '{named['COEVO_COORDINATOR']}', expected HOST:PORT of process 0"
        )
    numbers = []
    for name, least in (("COEVO_PROCESSES", 1), ("COEVO_PROCESS_ID", 0)):
        if not named[name].isdecimal() or int(named[name]) < least:
            raise ConfigError(f"{name}: found '{named[name]}', expected a whole number from {least} on")
        numbers.append(int(named[name]))
    processes, process = numbers
    if process >= processes:
        raise ConfigError(
            f"COEVO_PROCESS_ID: found {process}, expected 0 to {processes - 1} "
            f"(COEVO_PROCESSES is {processes})"
        )
    return named["COEVO_COORDINATOR"], processes, process


def _join(**arguments: Any) -> None:
    import jax  # here, where several processes are at work: a refusal of one alone needs none of it

    print("joining the other processes of this run ...", file=sys.stderr, flush=True)
    try:
        jax.distributed.initialize(initialization_timeout=START_TIMEOUT, **arguments)
    except ValueError as error:  # JAX's way to say that nothing here tells it who takes part
        cluster = arguments.get("cluster_detection_method")
        raise ConfigError(
            f"COEVO_CLUSTER: found '{cluster}', but JAX finds no such cluster here ({error})"
        ) from None
