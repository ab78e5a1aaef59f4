"""From YAML and dotted overrides to one resolved `Config`, and back."""

import difflib
import re
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from coevo_jax.config.architectures import complete_model
from coevo_jax.config.check import check
from coevo_jax.config.idle import idle_options
from coevo_jax.config.old_form import new_words, translated
from coevo_jax.config.options import Config
from coevo_jax.config.origin import Origin
from coevo_jax.config.recipe_data import learners_in, override_recipe
from coevo_jax.config.strict import ConfigError, inside, keys_of, nearest, validate
from coevo_jax.config.yaml_text import parse_yaml, write_yaml
from coevo_jax.files import shipped


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file and what it `extends`, apply `key.sub=value` overrides, validate and check the whole.

    Raises:
      ConfigError: with the file or override, the key, what was found and what was expected.
    """
    config, origin = _load(Path(path), overrides)
    if idle := list(idle_options(config, origin)):
        raise ConfigError("\n".join(idle))
    return config


def load_resolved(path: str | Path) -> Config:
    """Read the config of a stored run, which sets every option, idle or not.

    Raises:
      ConfigError: as `load_config` does.
    """
    return _load(Path(path), ())[0]


def _load(path: Path, overrides: Sequence[str]) -> tuple[Config, Origin]:
    found, origin, places = _read_extending(path, ())
    data = translated(found, origin, str(path))
    if data is not found:
        _say_old(str(path))
    # Who sets every option, as the config of a run's folder does, chose none of them.
    whole = data is not found or all(origin.get(name) == str(path) for name in Config.model_fields)
    for text in overrides:
        _override(data, origin, text)
    name_recipe(data, origin.get("recipe", str(path)))
    _settle_agents(data, origin, places)
    if isinstance(data.get("model"), dict):
        complete_model(data["model"], origin)

    def source_of(key: str) -> str:
        parts = re.sub(r"\[\d+\]", "", key).split(".")
        prefixes = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
        return next((origin[prefix] for prefix in prefixes if prefix in origin), str(path))

    try:
        config = validate(Config, data, str(path), source_of=source_of)
        check(config, " ".join([str(path), *overrides]))
    except ConfigError as error:
        raise _said_of_cut(error, places) from None
    own = None if whole else str(path)
    return config, Origin(origin, own, frozenset(f"override '{text}'" for text in overrides))


def _said_of_cut(error: ConfigError, places: Sequence[str]) -> ConfigError:
    """The error, with the file among those read that ends in mid-line: what was cut off blames other keys."""
    for place in places:
        text = Path(place).read_text(encoding="utf-8")
        if text and not text.endswith("\n"):
            last = text.splitlines()[-1].strip()[:60]
            return ConfigError(f"{error} ({place} ends in mid-line, at {last!r}: was it cut off there?)")
    return error


@cache
def _say_old(path: str) -> None:
    """Said once of a file."""
    words = "was read as a config of format 1, without recipes; CHANGELOG.md has the new words of its keys"
    print(f"{path}: {words}", file=sys.stderr, flush=True)


def name_recipe(data: dict[str, Any], source: str) -> None:
    """Put the phases of a shipped recipe in the place of its name.

    Raises:
      ConfigError: there is no such recipe.
    """
    name = data.get("recipe")
    if not isinstance(name, str):
        return
    names = sorted(path.stem for path in shipped("recipes").glob("*.yaml"))
    if name not in names:
        raise ConfigError(
            f"{source}: recipe: unknown recipe '{name}'{nearest(name, names)}; a list of phases is one, too"
        )
    path = shipped("recipes") / f"{name}.yaml"
    data["recipe"] = parse_yaml(path.read_text(encoding="utf-8"), str(path))


def read_options(texts: Sequence[str]) -> dict[str, Any]:
    """Options of an environment given as `key=value`, with the scalars of YAML; their schema is not checked.

    Raises:
      ConfigError: with the text that is no such option.
    """
    data: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"option '{text}': expected key=value, such as seed=1")
        nested: Any = parse_yaml(value, f"option '{text}'")
        for part in reversed(key.strip().split(".")):
            nested = {part: nested}
        _merge(data, nested, {}, text, "")
    return data


def to_yaml(config: Config) -> str:
    """Write the resolved configuration in the order of its fields; `load_config` reads it back unchanged."""
    return write_yaml(config.model_dump(mode="json"))


def _read_extending(
    path: Path, parents: tuple[Path, ...]
) -> tuple[dict[str, Any], dict[str, str], list[str]]:
    """Return a file merged over those it extends, who set each dotted key, and the files as they were merged.

    Of several, a later one is merged over those before it.
    """
    if "\0" in str(path):
        raise ConfigError(
            f"{parents[-1] if parents else 'config'}: extends: no file has the name {path.name!r}"
        )
    if path.resolve() in parents:
        chain = " -> ".join(p.name for p in (*parents, path))
        raise ConfigError(f"{path}: extends itself ({chain})")
    data = _read_yaml(path)
    extended = data.pop("extends", None)
    names = [] if extended is None else [extended] if isinstance(extended, str) else extended
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ConfigError(
            f"{path}: extends: found {extended!r}, expected the name of another YAML file, or a list of them"
        )
    merged: dict[str, Any] = {}
    origin: dict[str, str] = {}
    places: list[str] = []
    for name in names:
        parent, parent_origin, own = _read_extending(path.parent / name, (*parents, path.resolve()))
        places += own
        _merge(merged, parent, {}, "", "")
        origin |= parent_origin
    _merge(merged, data, origin, str(path), "")
    return merged, origin, [*places, str(path)]


def _settle_agents(data: dict[str, Any], origin: Mapping[str, str], places: Sequence[str]) -> None:
    """Give agents that learn their options, and drop those of others where these came before the recipe.

    What the place that names the recipe, or a later one, sets for such an agent stays, to be refused. After
    all `places`, which are files in the order in which they were merged, come overrides.
    """
    learners, agents = learners_in(data.get("recipe")), data.setdefault("agents", {})
    if learners is None or not isinstance(agents, dict):
        return

    def place(key: str) -> int:
        who = origin.get(key, "")
        return places.index(who) if who in places else len(places)

    for name in [name for name in agents if name not in learners]:
        keys = [key for key in origin if f"{key}.".startswith(f"agents.{name}.")]
        if all(place(key) < place("recipe") for key in keys):
            del agents[name]
    own = {name: agents.get(name, {}) for name in learners}
    data["agents"] = own | {name: options for name, options in agents.items() if name not in own}


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file{_nearest_file(path)}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as a UTF-8 text file: {error}") from None
    data = parse_yaml(text, str(path))
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError(
            f"{path}: found a {type(data).__name__} at the top level, expected a mapping of keys"
        )
    return data


def _nearest_file(path: Path) -> str:
    if not path.parent.is_dir():
        return f" (the folder {path.parent} does not exist)"
    names = sorted(p.name for p in path.parent.glob("*.y*ml"))
    close = difflib.get_close_matches(path.stem, [Path(name).stem for name in names], n=1)
    if close:
        nearest_name = next(name for name in names if Path(name).stem == close[0])
        return f" (did you mean {path.parent / nearest_name}?)"
    return f" (YAML files there: {', '.join(names) or 'none'})"


def _merge(
    base: dict[str, Any], child: Mapping[str, Any], origin: dict[str, str], source: str, key: str
) -> None:
    """Merge child into base, mapping by mapping; where both have a value, the child's wins."""
    for name, value in child.items():
        dotted = f"{key}.{name}" if key else name
        origin[dotted] = source
        if isinstance(value, dict):
            if not isinstance(base.get(name), dict):
                base[name] = {}
            _merge(base[name], value, origin, source, dotted)
        else:
            base[name] = value


def _override(data: dict[str, Any], origin: dict[str, str], text: str) -> None:
    key, equals, value = text.partition("=")
    source = f"override '{text}'"
    if not equals or not key:
        raise ConfigError(f"{source}: expected key=value, such as rounds=1 or agents.target.beta=[0.1,0.5]")
    if (words := new_words(key.strip(), parse_yaml(value, source))) is not None:
        raise ConfigError(f"{source}: {key.strip()} {words}")
    parts = key.strip().split(".")
    if parts[0] == "recipe" and len(parts) > 1:
        name_recipe(data, source)
        override_recipe(data.get("recipe"), parts[1:], parse_yaml(value, source), source)
        origin[".".join(parts)] = source
        return
    schema: Any = Config
    for depth, part in enumerate(parts):
        names = keys_of(schema)
        if names is None:
            raise ConfigError(f"{source}: {'.'.join(parts[:depth])} has no keys of its own")
        if names and part not in names:
            raise ConfigError(f"{source}: unknown key '{part}'{nearest(part, names)}")
        schema = inside(schema, part)
    nested: Any = parse_yaml(value, source)
    for part in reversed(parts):
        nested = {part: nested}
    _merge(data, nested, origin, source, "")
