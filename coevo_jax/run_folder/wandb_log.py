"""Weights & Biases as a second place for a run's metrics, imported by a run that asks for it and by no other.

A run keeps its W&B id in its folder, so a process that resumes it goes on with the same one. Rows have the
numbers of the metrics log's lines: W&B ignores a number that it has had, so what a killed process logged and
never committed is not there twice.
"""

import json
import secrets
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from coevo_jax.config.options import Config
from coevo_jax.config.strict import ConfigError
from coevo_jax.files import write_whole
from coevo_jax.run_folder.metrics import METRICS_FILE, Axis, read_metrics
from coevo_jax.run_folder.results import Results
from coevo_jax.run_folder.tensorboard import round_scalars, shown_of

IDENTITY = "wandb.json"


def check_wandb(config: Config) -> None:
    """Refuse a config that asks for W&B where it is not installed."""
    if config.log.wandb is not None and find_spec("wandb") is None:
        raise ConfigError("log.wandb: wandb is not installed; pip install -r requirements-wandb.txt")


class WandbLog:
    """The W&B run of this process."""

    def __init__(self, folder: Path, config: Config) -> None:
        """Begin, or go on with, the W&B run of a folder whose metrics log ends with what is committed.

        Raises:
          ConfigError: W&B is not installed, or cannot be used as the config asks.
        """
        check_wandb(config)
        wandb: Any = import_module("wandb")  # of requirements-wandb.txt
        options = config.log.wandb
        assert options is not None  # or nobody would ask for this
        self._axis = Axis()
        self._row = 0
        self._shown = (0, 0)  # evaluations and explorations that the summary has had
        self._stepped: set[str] = set()
        begun = (folder / IDENTITY).is_file()
        try:
            self._run: Any = wandb.init(
                project=options.project,
                mode=options.mode,
                name=config.name,
                group=config.method,
                id=_identity(folder),
                resume="allow",
                dir=str(folder),
                config=config.model_dump(mode="json"),
                settings=wandb.Settings(console="off", silent=True, disable_git=True),
            )
        except wandb.errors.Error as error:
            raise ConfigError(f"log.wandb: {error}") from None
        for line in read_metrics(folder / METRICS_FILE):
            placed = self._placed(line["step"], line["phase"], line["values"])
            if not begun:  # a fork begins with another run's lines
                self._log(placed)

    def write(self, step: int, phase: str, values: Mapping[str, float]) -> None:
        """Log a line of the metrics log, over the steps of whose metrics they are."""
        self._log(self._placed(step, phase, values))

    def show(self, results: Results) -> None:
        """Let the summary of the run have the newest evaluations and explorations."""
        found = sorted(round_scalars(results, self._shown), key=lambda one: one[1])
        self._shown = shown_of(results)
        self._run.summary.update({tag: value for tag, _, value in found})

    def close(self) -> None:
        self._run.finish()

    def _placed(self, step: int, phase: str, values: Mapping[str, float]) -> dict[str, float]:
        self._row += 1
        placed = dict(values)
        for tag in values:
            placed[f"{tag.partition('/')[0]}/step"] = self._axis.place(tag, step, phase)
        return placed

    def _log(self, values: Mapping[str, float]) -> None:
        for prefix in {tag.partition("/")[0] for tag in values} - self._stepped:
            self._run.define_metric(f"{prefix}/*", step_metric=f"{prefix}/step")
            self._stepped.add(prefix)
        self._run.log(dict(values), step=self._row)


def _identity(folder: Path) -> str:
    """The id of a run at W&B: made once, kept in its folder."""
    path = folder / IDENTITY
    if not path.is_file():
        write_whole(path, json.dumps({"id": secrets.token_hex(8)}) + "\n")
    return str(json.loads(path.read_text(encoding="utf-8"))["id"])
