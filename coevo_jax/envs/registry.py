"""The environments by name. To add one, write a package with options and a maker, and name it here."""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from coevo_jax.envs.env import Env
from coevo_jax.strict import ConfigError, nearest, validate


@dataclass(frozen=True, kw_only=True)
class EnvSpec:
    """Where an environment lives. Its package is imported on first use: another may need what is missing."""

    module: str
    options_name: str
    make_name: str

    @property
    def options(self) -> type[BaseModel]:
        """The record of its options."""
        return getattr(importlib.import_module(self.module), self.options_name)

    @property
    def make(self) -> Callable[[Any], Env]:
        """Builds an instance from its options record."""
        return getattr(importlib.import_module(self.module), self.make_name)


ENVIRONMENTS: dict[str, EnvSpec] = {
    "intercode_sql": EnvSpec(
        module="coevo_jax.envs.intercode_sql",
        options_name="InterCodeSqlOptions",
        make_name="make_intercode_sql",
    ),
    "scienceworld": EnvSpec(
        module="coevo_jax.envs.scienceworld",
        options_name="ScienceWorldOptions",
        make_name="make_scienceworld",
    ),
}


def make_env(name: str, options: Mapping[str, Any]) -> Callable[[], Env]:
    """A function that makes instances of an environment, its options checked once.

    Raises ConfigError for an unknown name, and for options that its record refuses.
    """
    if name not in ENVIRONMENTS:
        raise ConfigError(
            f"env.name: found {name!r}, expected one of {', '.join(ENVIRONMENTS)}"
            f"{nearest(name, list(ENVIRONMENTS))}"
        )
    spec = ENVIRONMENTS[name]
    checked, make = validate(spec.options, dict(options), "config", "env.options"), spec.make
    return lambda: make(checked)
