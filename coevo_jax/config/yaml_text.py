"""YAML 1.2 to plain data and back: every fault of a text is one ConfigError that says where it stands."""

import io
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import ConstructorError, SafeConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import ScalarNode
from ruamel.yaml.representer import SafeRepresenter
from ruamel.yaml.resolver import VersionedResolver

from coevo_jax.config.strict import ConfigError

WIDTH, UNFOLDED = 110, 10_000
MOST_LEVELS = 40  # a config has seven; an alias inside its own anchor has no end
MOST_VALUES = 100_000  # aliases of aliases can stand for billions
MOST_BITS = 63  # of an integer, beside its sign
_TAG = "tag:yaml.org,2002:"
_PLAIN = ("null", "bool", "str", "seq", "map")  # the core schema, beside numbers
_TEXT = ("timestamp", "value")  # of YAML 1.1: in a config, 2026-01-31 and = are text


class _Resolver(VersionedResolver):
    """Reads by the rules of YAML 1.2, whatever version a text claims to be."""

    @property
    def processing_version(self) -> tuple[int, int]:
        return (1, 2)


class _Constructor(SafeConstructor):
    """Makes plain data alone, in mappings whose keys are strings."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        for key, _ in node.value:
            if key.tag.removeprefix(_TAG) not in ("str", "merge", *_TEXT):
                words = f"key {key.value}" if isinstance(key, ScalarNode) else "a key"
                raise ConstructorError(None, None, f"{words} is not a string; quote it", key.start_mark)
        return super().construct_mapping(node, deep)

    def construct_number(self, node: Any) -> int | float:
        kind = node.tag.removeprefix(_TAG)
        try:
            return self.construct_yaml_int(node) if kind == "int" else self.construct_yaml_float(node)
        except ValueError:  # such as 0x_, or more digits than Python reads
            text = node.value if len(node.value) < 40 else f"{node.value[:37]}..."
            problem = f"{text} cannot be read as a number"
            raise ConstructorError(None, None, problem, node.start_mark) from None


_Constructor.yaml_constructors = {
    **{f"{_TAG}{name}": SafeConstructor.yaml_constructors[f"{_TAG}{name}"] for name in _PLAIN},
    **{f"{_TAG}{name}": SafeConstructor.construct_yaml_str for name in _TEXT},
    **{f"{_TAG}{name}": _Constructor.construct_number for name in ("int", "float")},
    None: SafeConstructor.yaml_constructors[None],
}


class _Representer(SafeRepresenter):
    """Quotes every string that a reader of YAML 1.1 or 1.2 would take for something else."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_text(self, data: str) -> Any:
        implied = [resolver.resolve(ScalarNode, data, (True, False)) for resolver in _BOTH]
        quoted = any(tag != VersionedResolver.DEFAULT_SCALAR_TAG for tag in implied)
        # ruamel.yaml 0.19.1 folds single-quoted U+0085 into other text; escapes stay what they are.
        style = '"' if not data.isprintable() else "'" if quoted else None
        return self.represent_scalar(f"{_TAG}str", data, style=style)

    def represent_number(self, data: float) -> Any:
        text = repr(data)  # "1e-05" has no point: a string to YAML 1.1
        mantissa, exponent, power = text.partition("e")
        return self.represent_scalar(
            f"{_TAG}float", text if not exponent or "." in mantissa else f"{mantissa}.0e{power}"
        )


_BOTH = (VersionedResolver(version=(1, 1)), VersionedResolver(version=(1, 2)))
_Representer.add_representer(str, _Representer.represent_text)
_Representer.add_representer(float, _Representer.represent_number)


def parse_yaml(text: str, source: str) -> Any:
    """The plain data of a text: mappings, lists and scalars.

    Raises:
      ConfigError: the text is no YAML, or has what no config needs. It names the source and the place.
    """
    reader = YAML(typ="safe", pure=True)
    reader.Constructor, reader.Resolver = _Constructor, _Resolver
    reader.composer.warn_double_anchors = False  # YAML lets an anchor's name be used again
    try:
        data = reader.load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        opened = f" ({error.context} of line {error.context_mark.line + 1})" if error.context_mark else ""
        raise ConfigError(f"{source}: {where}{error.problem}{opened}") from None
    except RecursionError:
        raise ConfigError(f"{source}: {_too_deep()}") from None
    except (YAMLError, ValueError) as error:
        raise ConfigError(f"{source}: broken YAML: {' '.join(str(error).split())}") from None
    _check_size(data, source)
    return data


def write_yaml(data: Any, *, inline: bool = False) -> str:
    """Plain data as YAML, in the order of its keys, that readers of YAML 1.1 and of 1.2 take for the same."""
    writer = YAML(typ="safe", pure=True)
    writer.Representer = _Representer
    writer.default_flow_style = inline
    writer.width = UNFOLDED if inline else WIDTH
    writer.sort_base_mapping_type_on_output = False  # pyright: ignore[reportAttributeAccessIssue]
    text = io.StringIO()
    writer.dump(data, text)
    return text.getvalue().removesuffix("...\n")  # the end of a document that is one scalar


def _check_size(data: Any, source: str) -> None:
    """Refuse what is too large to be meant: levels, values, and integers that no array can hold."""
    level, values = [("", data)], 0
    for _ in range(MOST_LEVELS + 1):
        values += len(level)
        if values > MOST_VALUES:
            raise ConfigError(f"{source}: stands for more than {MOST_VALUES:,} values, aliases counted")
        for key, value in level:
            if isinstance(value, str) and not _is_text(value):
                raise ConfigError(f"{source}: {key or 'text'}: found half of a character ({value[:20]!a})")
            if isinstance(value, int) and value.bit_length() > MOST_BITS:
                raise ConfigError(
                    f"{source}: {f'{key}: ' if key else ''}found an integer of {value.bit_length()} bits, "
                    f"expected one within 64"
                )
        level = [below for key, value in level for below in _inside(key, value)]
    if level:
        raise ConfigError(f"{source}: {_too_deep()}")


def _is_text(value: str) -> bool:
    """Whether a string can be written: an escape such as "\\ud800" is half of a pair."""
    return not any(0xD800 <= ord(one) <= 0xDFFF for one in value)


def _inside(key: str, value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        named = [(f"{key}.{name}" if key else name, one) for name, one in value.items()]
        return [*named, *(("a key", name) for name in value if not _is_text(name))]
    return [(f"{key}[{index}]", one) for index, one in enumerate(value)] if isinstance(value, list) else []


def _too_deep() -> str:
    return f"nested more than {MOST_LEVELS} levels deep, or an alias stands inside its own anchor"
