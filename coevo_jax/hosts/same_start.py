"""The processes of a run must be alike: the same code, packages, config and command, or they are refused."""

import hashlib
import json
import platform
from importlib import metadata
from typing import Any

from coevo_jax.config.options import Config
from coevo_jax.config.strict import ConfigError
from coevo_jax.files import CODE_ROOT
from coevo_jax.hosts.processes import Processes

CODE = ("coevo_jax", "launch")
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "transformers", "tokenizers")


def require_same_start(processes: Processes, config: Config, command: dict[str, Any]) -> None:
    """Compare what decides a run's numbers with the other processes.

    Args:
      command: further values that must agree, such as whether a run is resumed.

    Raises:
      ConfigError: in all processes, naming the first that differs from process 0 and in what.
    """
    if processes.count == 1:
        return
    mine = {**fingerprint(config), **{f"command {key}": str(value) for key, value in command.items()}}
    digest = hashlib.sha256(json.dumps(mine, sort_keys=True).encode()).hexdigest()
    if len(set(processes.exchange("start", digest))) > 1:
        starts = processes.exchange("start in detail", {"host": processes.host, "start": mine})
        raise ConfigError(difference(starts))


def fingerprint(config: Config) -> dict[str, str]:
    """Every file of the code, every package and every option, as flat strings."""
    found = {"python": platform.python_version()}
    for folder in CODE:
        for path in sorted((CODE_ROOT / folder).rglob("*.py")):
            digest = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
            found[f"code {path.relative_to(CODE_ROOT)}"] = f"sha256 {digest}"
    for name in PACKAGES:
        try:
            found[f"package {name}"] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[f"package {name}"] = "missing"
    return found | {f"config {key}": value for key, value in _flat(config.model_dump(mode="json"))}


def difference(starts: list[dict[str, Any]]) -> str:
    """The first process that differs from process 0, and the first thing in which it does."""
    first = starts[0]
    for index, other in enumerate(starts):
        for key in sorted(first["start"].keys() | other["start"].keys()):
            has, wanted = (side["start"].get(key, "missing") for side in (other, first))
            if has != wanted:
                return (
                    f"process {index} ({other['host']}) differs from process 0 ({first['host']}): {key}: "
                    f"found {has}, expected {wanted}; start all processes with the same code, packages, "
                    "config and command"
                )
    raise ValueError("all processes are alike")


def _flat(value: Any, prefix: str = "") -> list[tuple[str, str]]:
    """Dotted keys and JSON values of a nested dict."""
    if isinstance(value, dict) and value:
        return [item for key in value for item in _flat(value[key], f"{prefix}{key}.")]
    return [(prefix.rstrip("."), json.dumps(value))]
