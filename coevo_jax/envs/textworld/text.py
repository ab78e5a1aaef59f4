"""What the agent may say and what it gets to read: TextWorld's text without its frame."""

import re
from collections.abc import Sequence

COMMAND_CHARS = 190
"""Longest command; the interpreter itself cuts at 198 bytes."""

META = re.compile(
    r"(?:restart|restore|save|quit|q|undo|again|g|oops|o|script|unscript|noscript|transcript|notify|pronouns"
    r"|nouns|verify|version|recording|replay|brief|superbrief|verbose|short|long|normal|score|full"
    r"|print_state|tw-\S*|restrict|enable|disable|trace|showme|showheap|abstract|purloin|gonear)\b",
    re.IGNORECASE,
)
"""Commands to the interpreter, not to the game: they would leave it, undo it or show its inside."""

SEVERAL = re.compile(r"[.,;:!?]|\bthen\b|\band\b", re.IGNORECASE)
"""What joins several commands to one line; no command of TextWorld contains it."""

NOT_UNDERSTOOD = (
    "That's not a verb I recognise",
    "I didn't understand",
    "I only understood you as far as",
    "I beg your pardon",
    "You seem to have said too little",
    "You seem to want to talk to someone",
)
"""How TextWorld's answers to a malformed command begin."""

NOT_DONE = re.compile(
    r"(?:\([^\n]*\)\n)*"  # what the game took for granted: "(with the key)"
    r"(?:You (?:can't|cannot|aren't|haven't|need to|have to|would have to|must|lack|don't seem|still miss)\b"
    r"|You'(?:ll have to say|re carrying too many|re not something|re plainly inedible)"
    r"|(?:What do you want to|Who do you want to|Which do you mean|Who do you mean|But |First you would) ?"
    r"|There(?: is|'s| are) (?:no more room|no door in|nothing suitable|nothing sensible)"
    r"|(?:That|Those|It|They) (?:isn't something|aren't something|doesn't seem|don't seem|can't contain"
    r"|(?:isn't|aren't) (?:available|there)|seems? to (?:be locked|be a part of|belong to))"
    r"|(?:That's|Those are|They're|It's) (?:fixed in place|hardly portable|plainly inedible|not something)"
    r"|The [^\n.]{1,40} (?:is|are) closed\.|[^\n.]{1,60} (?:is|are) fixed in place\."
    r"|Can only (?:cut|prepare) |Something still needs to be |Cutting |Putting things on )"
)
"""How TextWorld's answers to a command that cannot be done begin, after Inform's standard rules and the
cooking game's own. "Already open" is none of them: all is so as the command wants it."""

STATUS = re.compile(r"\n>[ \t]*(?:-=[^\n]*)?\s*\Z")
CENTRED = " " * 10  # how a line that was centred on a screen begins
QUESTION = re.compile(r"\s*Would you like to RESTART.*\Z", re.DOTALL)
BLANK_LINES = re.compile(r"\n{3,}")


def refused(action: str) -> str | None:
    """Why an action is no single command of a game, as an observation; None where the game may answer it."""
    command = action.strip().removesuffix(".")
    if not command:
        return "Invalid action. No command was given."
    if len(command) > COMMAND_CHARS:
        return f"Invalid action. A command has at most {COMMAND_CHARS} characters."
    if not (command.isascii() and command.isprintable()):
        return "Invalid action. A command is one line of plain letters."
    if SEVERAL.search(command):
        return "Invalid action. One command a turn, without punctuation."
    if META.match(command):
        return "Invalid action. That is no command of the game."
    return None


def not_done(observation: str) -> bool:
    """Whether an answer says that a command which was understood could not be done."""
    return NOT_DONE.match(observation) is not None


def command_of(action: str) -> str:
    """The command as the interpreter takes it."""
    return " ".join(action.strip().removesuffix(".").split())


def clean(feedback: str) -> str:
    """TextWorld's text without title picture, prompt, status line, menu of the end and trailing blanks."""
    text = _without_picture(QUESTION.sub("", STATUS.sub("", feedback)))
    lines = [line.strip() if line.startswith(CENTRED) else line.rstrip() for line in text.splitlines()]
    text = BLANK_LINES.sub("\n\n", "\n".join(lines)).strip()
    return f"Invalid action. {text}" if text.startswith(NOT_UNDERSTOOD) else text


def _without_picture(text: str) -> str:
    """Drop everything up to the last line of the title, which is drawn with dollar signs."""
    lines = text.split("\n")
    drawn = [i for i, line in enumerate(lines) if "$$" in line]
    return "\n".join(lines[drawn[-1] + 1 :]) if drawn else text


LISTED = "\nCommands: "


def with_commands(observation: str, commands: Sequence[str], chars: int, show: bool) -> str:
    """The observation cut to `chars`, and the commands that would do something where they are shown."""
    cut = observation[:chars]
    return f"{cut}{LISTED}{', '.join(commands)}" if show and commands else cut


def commands_in(observation: str) -> list[str]:
    """The commands that an observation lists; none where they are not shown."""
    _, listed, commands = observation.rpartition(LISTED)
    return commands.split(", ") if listed else []
