"""The commands and examples that the README and docs/ print, as the tests see them.

A fenced block without a language holds commands, and nothing else; what a command prints stands in ```text.
In the text, a command is what stands between backticks and begins like one of the project's. A word in
capitals stands for what a user fills in, and takes the value below.
"""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = {
    str(path.relative_to(ROOT)): path for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
}

FILLED_IN = {
    "CONFIG": "quickstart-sft.yaml",
    "ENVIRONMENT": "webshop",
    "NAME": "quickstart",
    "RUN": "runs/quickstart",
    "FOLDER": "data/official",
    "ANSWERS": "answers.json",
    "PYTHON": "peer/bin/python",
    "TRL": "trl",
    "TUNIX": "tunix",
    "PROJECT": "project",
    "REGISTRY": "registry",
    "CLUSTER": "cluster",
    "REPOSITORY": "repository",
}
# Programs of others that the pages name; nothing of theirs is run here.
FOREIGN = {
    *(
        "cd",
        "docker",
        "export",
        "gcloud",
        "git",
        "mysql",
        "mysqld",
        "pip",
        "scancel",
        "squeue",
        "tail",
        "xprof",
    ),
    "sglang.launch_server",
}
OURS = re.compile(r"(?:[A-Z_]+=\S+ )*(?:(?:\./)?launch/\S+\.sh|(?:\.venv/bin/)?python -m [\w.]+)(?: |$)")


@dataclass(frozen=True, kw_only=True)
class Command:
    """One command of a page."""

    page: str
    words: tuple[str, ...]  # as a shell splits them, without variables that are set for it alone
    block: bool  # it stands in a block, not in the text

    @property
    def program(self) -> str:
        """A script, or the module that Python runs."""
        first = self.words[0].removeprefix("./")
        return self.words[2] if self.is_python else first

    @property
    def is_python(self) -> bool:
        return self.words[0] in ("python", ".venv/bin/python") and self.words[1:2] == ("-m",)

    @property
    def arguments(self) -> tuple[str, ...]:
        return self.words[3:] if self.is_python else self.words[1:]

    @property
    def configs(self) -> tuple[str, ...]:
        return tuple(word for word in self.arguments if word.endswith(".yaml"))

    @property
    def typed(self) -> tuple[str, ...]:
        """Its words, the same by whichever path the interpreter is called."""
        return ("python", *self.words[1:]) if self.is_python else self.words

    def __str__(self) -> str:
        return shlex.join(self.words)


def blocks(text: str, language: str = "") -> list[str]:
    """The fenced blocks of a language."""
    found, inside, lines = [], None, []
    for line in text.splitlines():
        fence = re.match(r"^```(.*)$", line)
        if fence and inside is None:
            inside, lines = fence[1], []
        elif fence:
            if inside == language:
                found.append("\n".join(lines))
            inside = None
        elif inside is not None:
            lines.append(line)
    assert inside is None, "a block has no end"
    return found


def prose(text: str) -> str:
    """A page without its blocks."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def fill_in(text: str) -> str:
    """The text with a value in the place of every word that a user fills in."""
    # `NAME` in `runs/NAME`, but neither `SOME_NAME` nor `--NAME`.
    return re.sub(r"(?<![\w-])[A-Z]{3,}(?![\w=])", lambda m: FILLED_IN.get(m[0], m[0]), text)


def split(text: str, page: str, *, block: bool) -> list[Command]:
    """The commands of a line or of a block, one for each that a shell would run."""
    found = []
    values = dict(re.findall(r'^([A-Z])="(.*)"$', text, re.MULTILINE))
    for line in text.replace("\\\n", " ").splitlines():
        if re.match(r'^[A-Z]="', line):
            continue
        for name, value in values.items():
            line = re.sub(rf"\${name}\b", value, line)
        words = shlex.split(fill_in(re.sub(r"\s{2,}# .*| # .*", "", line)))
        one: list[str] = []
        for word in [*words, "&&"]:
            joins = word in ("&&", "&")
            ends = joins or word.endswith(";")
            one += [] if joins else [word.rstrip(";")]
            if ends and one:
                bare = [
                    w for n, w in enumerate(one) if not all(re.match(r"[A-Z_]+=", v) for v in one[: n + 1])
                ]
                found.append(Command(page=page, words=tuple(bare), block=block))
                one = []
    return found


def commands(page: str) -> list[Command]:
    """Every command of a page, in order; those of its blocks first."""
    text = PAGES[page].read_text()
    found = [command for block in blocks(text) for command in split(block, page, block=True)]
    spans = [" ".join(span.split()) for span in re.findall(r"(?<!`)`([^`]+)`(?!`)", prose(text))]
    return found + [one for span in spans if OURS.match(span) for one in split(span, page, block=False)]


def all_commands() -> list[Command]:
    """Every command of every page."""
    return [command for page in PAGES for command in commands(page)]


def examples(page: str) -> dict[str, str]:
    """The files that a page prints: each block is preceded by its name, as in "`guess_env.py`:"."""
    found = re.findall(
        r"`([\w.]+\.(?:py|yaml))`[^`\n]*:\n\n(?:<!-- [^\n]* -->\n)?```(?:python|yaml)\n(.*?)^```$",
        PAGES[page].read_text(),
        re.MULTILINE | re.DOTALL,
    )
    return dict(found)
