"""What an audit begins with: how much it looks at, and a run's manifest and config."""

import json
from pathlib import Path
from typing import Any

from coevo_jax.config.options import Config
from coevo_jax.config.reading import load_resolved
from coevo_jax.config.strict import ConfigError

FORMATS = (1, 2)  # of a run's folder
SCORED = 64  # trajectories that are scored again in each phase, unless more are asked for


def open_run(folder: Path) -> tuple[dict[str, Any], Config]:
    """The manifest and the config of a run.

    Raises:
      ConfigError: the folder is no run, or its manifest or config cannot be read.
    """
    path = folder / "manifest.json"
    if not path.is_file():
        what = "holds no manifest.json" if folder.is_dir() else "does not exist"
        raise ConfigError(f"{folder}: the folder {what}; expected the folder of a run")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        number = manifest["format"] if "format" in manifest else manifest["version"]  # its name in format 1
        complete = isinstance(manifest["done"], list) and "running" in manifest
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: not a manifest of a run ({error})") from None
    if number not in FORMATS or not complete:
        raise ConfigError(f"{path}: format: found {number}, expected one of {FORMATS}")
    return manifest, load_resolved(folder / "config.yaml")
