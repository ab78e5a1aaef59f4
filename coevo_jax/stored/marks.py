"""The mark that a stored agent is used under: the recipe's, or one that a command line names."""

from hashlib import sha256
from pathlib import Path

from coevo_jax.config.check_marks import taught_marks
from coevo_jax.config.options import Config
from coevo_jax.config.recipe_queries import evaluations_of, mark_of
from coevo_jax.config.strict import ConfigError
from coevo_jax.data.chat.format import chat_format
from coevo_jax.data.chat.marking import cannot_hold
from coevo_jax.data.chat.tokenizer import load_tokenizer
from coevo_jax.methods.marks import wrong_mark
from coevo_jax.phases.world import TOKENIZER_DIR
from coevo_jax.progress import CONSOLE


def used_mark(folder: Path, config: Config, agent: str, asked: str | None) -> str:
    """The mark under which an agent of a run is played; "" plays without one.

    A mark that the agent has not learned under is played all the same, with a warning: who names it on a
    command line means it.

    Args:
      asked: as a command line has it; None takes that of the recipe's evaluation of the agent.

    Raises:
      ConfigError: what is asked for is no mark, or the run's chat format cannot hold it.
    """
    mark = mark_of(config.recipe, agent) if asked is None else asked
    if not mark:
        return mark
    if why := wrong_mark(mark):
        raise ConfigError(f"--mark: {why}")
    if why := cannot_hold(chat_format(load_tokenizer(folder / TOKENIZER_DIR)), mark):
        raise ConfigError(f"--mark: the chat format cannot hold {mark!r}: {why}")
    taught = taught_marks(config, agent)
    if mark not in taught:
        known = ", ".join(map(repr, taught)) or "no marks"
        CONSOLE.print(
            f"warning: the {agent} agent is not known to have learned under {mark!r}: "
            f"its sources have {known}",
            soft_wrap=True,
            markup=False,
        )
    return mark


def mark_suffix(config: Config, agent: str, mark: str) -> str:
    """What tells the files of an evaluation under another mark than the recipe's apart; "" under that one.

    A mark of another evaluation of the recipe has that one's name.
    """
    if mark == mark_of(config.recipe, agent):
        return ""
    named = (one.label for one in evaluations_of(config.recipe) if (one.agent, one.mark) == (agent, mark))
    other = "unmarked" if not mark else f"mark-{sha256(mark.encode()).hexdigest()[:8]}"
    return f"-{next(named, other)}"
