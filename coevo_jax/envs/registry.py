"""The environments by name. To add one, write a package with options and a maker, and name it here.

An environment of a user's own needs no entry: its name is "package.module:make_function".
"""

import importlib
import inspect
import os
import pkgutil
import sys
import traceback
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import BaseModel

from coevo_jax.config.strict import ConfigError, StrictModel, nearest, validate

if typing.TYPE_CHECKING:
    from coevo_jax.envs.env import Env
    from coevo_jax.envs.players import Players

Generate = Callable[[Any, Path, Callable[[int, int], None]], None]


@dataclass(frozen=True, kw_only=True)
class EnvSpec:
    """Where an environment lives, as "package.module:name".

    It is imported on first use: another may need what is missing. The options stand in a module of
    their own that imports nothing heavy: `--help` lists those of all.
    """

    make_at: str
    options_at: str | None = None  # None: the record that annotates the maker's parameter
    generate_at: str | None = None  # `generate(options, out, on_progress)`, where data can be generated
    players_at: str | None = None  # a `Players` record, where scripted imperfect players play

    @property
    def options(self) -> type[BaseModel]:
        """The record of its options."""
        if self.options_at is None:
            return _annotated_record(self.make, self.make_at)
        return _found(self.options_at)

    @property
    def make(self) -> Callable[[Any], "Env"]:
        """Builds an instance from its options record."""
        return _found(self.make_at)

    @property
    def generate(self) -> Generate | None:
        """Writes generated data into a folder; None where there is nothing to generate."""
        return None if self.generate_at is None else _found(self.generate_at)

    @property
    def players(self) -> "Players | None":
        """Its scripted players; None where nobody wrote any."""
        return None if self.players_at is None else _found(self.players_at)


def _found(where: str) -> Any:
    module, _, name = where.partition(":")
    return getattr(importlib.import_module(module), name)


ENVIRONMENTS: dict[str, EnvSpec] = {
    "intercode_sql": EnvSpec(
        options_at="coevo_jax.envs.intercode_sql.options:InterCodeSqlOptions",
        make_at="coevo_jax.envs.intercode_sql.environment:make_intercode_sql",
        generate_at="coevo_jax.envs.intercode_sql.environment:generate_intercode_sql",
        players_at="coevo_jax.envs.intercode_sql.players:PLAYERS",
    ),
    "scienceworld": EnvSpec(
        options_at="coevo_jax.envs.scienceworld.options:ScienceWorldOptions",
        make_at="coevo_jax.envs.scienceworld.environment:make_scienceworld",
    ),
    "webshop": EnvSpec(
        options_at="coevo_jax.envs.webshop.options:WebShopOptions",
        make_at="coevo_jax.envs.webshop.environment:make_webshop",
        generate_at="coevo_jax.envs.webshop.generator:generate_webshop",
        players_at="coevo_jax.envs.webshop.players:PLAYERS",
    ),
    "textworld": EnvSpec(
        options_at="coevo_jax.envs.textworld.options:TextWorldOptions",
        make_at="coevo_jax.envs.textworld.environment:make_textworld",
        generate_at="coevo_jax.envs.textworld.generate:generate_textworld",
    ),
    "openenv": EnvSpec(
        options_at="coevo_jax.envs.openenv.options:OpenEnvOptions",
        make_at="coevo_jax.envs.openenv.environment:make_openenv",
        players_at="coevo_jax.envs.random_players:PLAYERS",
    ),
    "textarena": EnvSpec(
        options_at="coevo_jax.envs.textarena.options:TextArenaOptions",
        make_at="coevo_jax.envs.textarena.environment:make_textarena",
        players_at="coevo_jax.envs.random_players:PLAYERS",
    ),
    "reset_step": EnvSpec(
        options_at="coevo_jax.envs.reset_step.options:ResetStepOptions",
        make_at="coevo_jax.envs.reset_step.environment:make_reset_step",
        players_at="coevo_jax.envs.random_players:PLAYERS",
    ),
    "alfworld": EnvSpec(
        options_at="coevo_jax.envs.alfworld.options:AlfWorldOptions",
        make_at="coevo_jax.envs.alfworld.environment:make_alfworld",
    ),
}


def check_options(name: str, options: Mapping[str, Any]) -> BaseModel | None:
    """Check what can be said of an environment without importing it.

    Returns the checked options, or None for a user's own environment, which must be imported to be known.

    Raises:
      ConfigError: no such name, or options that its record refuses.
    """
    if name not in ENVIRONMENTS and ":" in name:
        return None
    return validate(find_environment(name).options, dict(options), "config", "env.options")


def make_env(name: str, options: Mapping[str, Any]) -> Callable[[], "Env"]:
    """A function that makes instances of an environment, its options checked once.

    Raises:
      ConfigError: `find_environment` refuses the name, or its record refuses the options.
    """
    spec = find_environment(name)
    checked, make = validate(spec.options, dict(options), "config", "env.options"), spec.make
    return partial(make, checked)  # picklable: a process of its own can make one, too


def find_environment(name: str) -> EnvSpec:
    """The environment of a name: one of `ENVIRONMENTS`, or a user's own "package.module:make_function".

    A user's module is imported, from the current directory too. Its maker takes one parameter, annotated
    with the `StrictModel` of its options.

    Raises:
      ConfigError: there is no such environment; the message says what is wrong, with the nearest name.
    """
    if name in ENVIRONMENTS:
        return ENVIRONMENTS[name]
    module_name, colon, make_name = name.partition(":")
    if not colon:
        raise ConfigError(
            f"env.name: found {name!r}, expected one of {', '.join(ENVIRONMENTS)}, or your own as "
            f"package.module:make_function{_close(name, list(ENVIRONMENTS))}"
        )
    if not all(part.isidentifier() for part in (*module_name.split("."), make_name)):
        raise ConfigError(f"env.name: found {name!r}, expected the form package.module:make_function")
    _check_maker(_import(module_name, name), make_name, name)
    return EnvSpec(make_at=name)


def _close(name: str, valid: list[str]) -> str:
    """The nearest name as a hint; nothing where none is near, for the list stands there already."""
    hint = nearest(name, valid)
    return "" if hint.startswith(" (valid") else hint


def _import(module: str, name: str) -> ModuleType:
    """Import a user's module; what breaks while it runs is told with its file and line."""
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.insert(0, os.getcwd())
    importlib.invalidate_caches()
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module}.".startswith(f"{error.name}."):
            raise ConfigError(
                f"env.name: found {name!r}, but there is no module {error.name!r}{_near_module(error.name)}; "
                f"looked in {os.getcwd()} and where Python finds its packages"
            ) from None
        raise _broken(module, name, error) from error
    except Exception as error:
        raise _broken(module, name, error) from error


def _near_module(missing: str) -> str:
    """The nearest module beside the missing one: in the current directory, or in its parent package."""
    parent, _, last = missing.rpartition(".")
    paths = sys.modules[parent].__path__ if parent in sys.modules else [os.getcwd()]
    names = [found.name for found in pkgutil.iter_modules(list(paths))]
    return _close(last, names)


def _broken(module: str, name: str, error: Exception) -> ConfigError:
    if isinstance(error, SyntaxError):
        where = f"{error.filename}:{error.lineno}"
    else:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{frame.filename}:{frame.lineno}"
    return ConfigError(
        f"env.name: found {name!r}, but importing {module} failed: {type(error).__name__}: {error} ({where})"
    )


def _check_maker(module: ModuleType, make_name: str, name: str) -> None:
    where = getattr(module, "__file__", None) or module.__name__
    if not hasattr(module, make_name):
        own = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise ConfigError(
            f"env.name: found {name!r}, but {where} has no {make_name!r}{nearest(make_name, own)}"
        )
    make = getattr(module, make_name)
    if not callable(make):
        raise ConfigError(
            f"env.name: found {name!r}, but {make_name} in {where} is of type {type(make).__name__}, "
            "expected a function that makes an environment from its options"
        )
    _annotated_record(make, name)


def _annotated_record(make: Callable[..., Any], name: str) -> type[StrictModel]:
    """The options record in `def make(options: MyOptions)`."""
    expected = "expected one parameter annotated with a StrictModel, as in def make(options: MyOptions)"
    try:
        parameters = list(inspect.signature(make).parameters.values())
        hints = typing.get_type_hints(make.__init__ if inspect.isclass(make) else make)
    except (NameError, TypeError, ValueError) as error:
        raise ConfigError(
            f"env.name: found {name!r}, whose signature cannot be read ({error}); {expected}"
        ) from None
    usable = parameters and parameters[0].kind in (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
    )
    needed = [
        p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    record = hints.get(parameters[0].name) if usable else None
    if not usable or needed not in ([], [parameters[0].name]) or not _is_strict(record):
        raise ConfigError(
            f"env.name: found {name!r} with the signature {inspect.signature(make)}; {expected}"
        )
    return typing.cast(type[StrictModel], record)


def _is_strict(record: Any) -> bool:
    return isinstance(record, type) and issubclass(record, StrictModel)
