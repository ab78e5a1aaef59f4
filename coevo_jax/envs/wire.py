"""Records between the processes of a run as bytes: reading them makes records of this code, nothing else.

An environment in a process of its own is where what an agent wrote is acted on. What comes from there is
data: bytes that name another class or function than a record, an enumeration or a fault of this package are
refused before anything of it is called.
"""

import dataclasses
import enum
import io
import pickle
import sys
from typing import Any

from coevo_jax.config.strict import ConfigError
from coevo_jax.envs.env import EnvFault

PACKAGE = "coevo_jax."


def to_bytes(value: Any) -> bytes:
    """Plain data, records and faults as bytes."""
    return pickle.dumps(value)


def from_bytes(content: bytes) -> Any:
    """What `to_bytes` was given.

    Raises:
      EnvFault: these are not the bytes of plain data and records.
    """
    try:
        return _Reader(io.BytesIO(content)).load()
    except EnvFault:
        raise
    except Exception as error:  # a broken pickle may raise anything
        raise EnvFault(f"its answer cannot be read ({type(error).__name__}: {error})") from None


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        # Whatever is read here was imported before: to import is to run code, too.
        found = getattr(sys.modules.get(module), name, None) if module.startswith(PACKAGE) else None
        if isinstance(found, type) and found.__module__ == module and _is_record(found):
            return found
        raise EnvFault(f"its answer holds {module}.{name}, expected text, numbers and records")


def _is_record(kind: type) -> bool:
    named_tuple = issubclass(kind, tuple) and hasattr(kind, "_fields")
    return (
        dataclasses.is_dataclass(kind) or named_tuple or issubclass(kind, enum.Enum | EnvFault | ConfigError)
    )


def plain(value: Any) -> Any:
    """An answer without types of other packages, such as NumPy's numbers and their kinds of text."""
    if isinstance(value, list | tuple) and type(value) in (list, tuple):
        return type(value)(map(plain, value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type) and _of_package(value):
        fields = {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return dataclasses.replace(value, **fields)
    if isinstance(value, str) and type(value) is not str and not isinstance(value, enum.Enum):
        return str(value)
    if type(value).__module__ == "numpy" and hasattr(value, "item") and not getattr(value, "shape", ()):
        number: Any = value
        return number.item()
    return value


def _of_package(value: Any) -> bool:
    return type(value).__module__.startswith(PACKAGE)
