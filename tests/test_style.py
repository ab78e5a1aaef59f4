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

# Files that do not keep a rule yet. A file that does leaves its list.
ERRORS_INSIDE_THE_TEXT = {
    *("commands/cli.py", "commands/data.py", "commands/actions/data.py"),
    *("config/check.py", "config/reading.py", "config/strict.py"),
    *("progress.py", "run_folder/metrics.py", "run_folder/results.py"),
}
WITHOUT_A_DOCSTRING = {
    *("commands/audit.py", "commands/compile.py", "commands/conformance.py", "commands/data.py"),
    *("commands/evaluate.py", "commands/export.py", "commands/play.py", "commands/report.py"),
    *("commands/scaling.py", "commands/sweep.py", "commands/train.py"),
    *("commands/actions/audit.py", "commands/actions/scaling.py", "commands/actions/sweep.py"),
    *("run_folder/checkpoint.py", "run_folder/folder.py", "run_folder/manifest.py"),
}
BROKEN_FIRST_LINE = {"config/reading.py", "run_folder/checkpoint.py", "run_folder/results.py"}

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


def differs(problems: dict[str, str], listed: set[str]) -> str:
    """The problems of files that are not listed, and the listed files without one; "" if there are none."""
    broken = [f"{file}: {problem}" for file, problem in problems.items() if file not in listed]
    kept = [f"{file}: keeps the rule, take it off the list" for file in sorted(listed - problems.keys())]
    return "\n".join(broken + kept)


def test_errors_have_a_part_of_their_own():
    problems = {}
    for file, name, text, _ in docstrings():
        if found := INLINE.search(text):
            problems[file] = f"{name} says {found[0]!r} in its text, expected a part Raises:"
    found = differs(problems, ERRORS_INSIDE_THE_TEXT)
    assert not found, found


def test_the_parts_of_a_docstring_stand_in_one_order():
    for file, name, text, _ in docstrings():
        parts = PART.findall(text)
        assert parts == [part for part in ORDER if part in parts], f"{file}: {name} has {parts}"


def test_what_is_public_has_a_docstring():
    """Modules, and the classes and functions that others import from them."""
    problems = {}
    for file, tree in trees().items():
        names = [node for node in tree.body if isinstance(node, NAMED) and not node.name.startswith("_")]
        for node in (tree, *names):
            if not ast.get_docstring(node):
                problems[file] = f"{name_of(node)} has no docstring"
    found = differs(problems, WITHOUT_A_DOCSTRING)
    assert not found, found


def test_the_first_line_of_a_docstring_is_a_whole_sentence():
    problems = {}
    for file, name, text, column in docstrings():
        first, *rest = text.splitlines()
        if not first.endswith((".", ":", "?")):
            problems[file] = f"{name} begins {first!r}, expected a full stop"
        elif rest and rest[0]:
            problems[file] = f"{name} lacks a blank line behind its first"
        elif column + len('"""' + first) > MAX_COLUMNS:
            problems[file] = f"{name} has a first line beyond column {MAX_COLUMNS}"
    found = differs(problems, BROKEN_FIRST_LINE)
    assert not found, found
