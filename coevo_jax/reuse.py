"""What a process compiles once and takes again: programs are found by what they were made of."""

from collections.abc import Callable
from functools import lru_cache
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def kept(size: int) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A decorator that keeps a function's last results by its arguments, which are hashable.

    It is for what makes programs to be compiled: the next run of a sweep, a study or a test then compiles
    nothing again. What is kept holds no arrays, only programs.

    Args:
      size: how many results are kept.
    """
    return lru_cache(maxsize=size)  # pyright: ignore[reportReturnType]  # it forgets its function's parameters
