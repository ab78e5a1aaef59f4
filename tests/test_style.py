"""The style of docstrings, kept by reading the source: a plain first line, and one form for errors raised."""

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "coevo_jax"
MAX_COLUMNS = 110
NAMED = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
INLINE = re.compile(r"\b[Rr]aises\s+(`?[A-Z]\w*|error\b|as\b)")  # "Raises:" begins a part of its own
PART = re.compile(r"^(Args|Returns|Yields|Raises):$", re.MULTILINE)
ORDER = ["Args", "Returns", "Yields", "Raises"]

Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@cache
def trees() -> dict[str, ast.Module]:
    """Every module of the package by its path inside it."""
    paths = sorted(PACKAGE.rglob("*.py"))
    return {path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text()) for path in paths}


def name_of(node: Documented) -> str:
    return "the module" if isinstance(node, ast.Module) else node.name


@cache
def docstrings() -> list[tuple[str, str, str, int]]:
    """File, name, text and column of every docstring: of modules, classes, functions and what is in them."""
    found = []
    for file, tree in trees().items():
        for node in ast.walk(tree):
            if isinstance(node, (ast.Module, *NAMED)) and (text := ast.get_docstring(node)) is not None:
                found.append((file, name_of(node), text, node.body[0].col_offset))
    return found


def test_errors_have_a_part_of_their_own():
    for file, name, text, _ in docstrings():
        found = INLINE.search(text)
        assert found is None, f"{file}: {name} says {found[0]!r} in its text, expected a part Raises:"


def test_the_parts_of_a_docstring_stand_in_one_order():
    for file, name, text, _ in docstrings():
        parts = PART.findall(text)
        assert parts == [part for part in ORDER if part in parts], f"{file}: {name} has {parts}"


def test_what_is_public_has_a_docstring():
    """Modules, and the classes and functions that others import from them."""
    for file, tree in trees().items():
        names = [node for node in tree.body if isinstance(node, NAMED) and not node.name.startswith("_")]
        for node in (tree, *names):
            assert ast.get_docstring(node), f"{file}: {name_of(node)} has no docstring"


def test_the_first_line_of_a_docstring_is_a_whole_sentence():
    for file, name, text, column in docstrings():
        first, *rest = text.splitlines()
        where = f"{file}: {name}"
        assert first.endswith((".", ":", "?")), f"{where} begins {first!r}, expected a full stop"
        assert not (rest and rest[0]), f"{where} lacks a blank line behind its first"
        assert column + len('"""' + first) <= MAX_COLUMNS, f"{where}: its first line is too long"
