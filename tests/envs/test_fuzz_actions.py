"""Texts that no agent was taught, as actions: an environment answers each, or the episode is a fault."""

import random

import pytest

from coevo_jax.envs import answers
from coevo_jax.envs.env import EnvFault
from coevo_jax.envs.registry import make_env
from tests.envs.test_conformance import FAST

MOST = 20_000
PIECES = [
    *("look", "search[", "click[", "]", "execute[", "SELECT", " * ", "FROM", "'", '"', ";", "--", "/*", "*/"),
    *(
        "(",
        ")",
        "\n",
        "\t",
        "\0",
        "\x1b[2J",
        "\ud800",
        "é",
        "日本",
        "🙂",
        "\u202e",
        "%s",
        "{}",
        "{0}",
        "../../x",
    ),
    *(
        "../../x",
        "/etc/passwd",
        "<|im_end|>",
        "[INST]",
        "<|pad|>",
        "NULL",
        "1e999",
        "-1",
        "9" * 40,
        "a" * 3000,
    ),
    *(
        "ATTACH DATABASE 'x' AS y",
        "PRAGMA writable_schema=1",
        "DROP TABLE",
        "LIKE",
        "UNION ALL",
        "WITH RECURSIVE",
    ),
    *("buy now", "back to search", "think", "submit", "Action: ", "Thought: ", "[CLS]", "$(id)", "`id`"),
]


SLOW = {
    "textworld": {"train_games": 2, "dev_games": 1, "test_games": 1},
    "scienceworld": {"families": ["find-living-thing"]},
}


def text(rng: random.Random) -> str:
    if rng.random() < 0.2:
        codes = (
            rng.choice((rng.randrange(32, 127), rng.randrange(0xD7FF))) for _ in range(rng.randrange(60))
        )
        return "".join(map(chr, codes))
    return "".join(rng.choice(PIECES) for _ in range(rng.randrange(6)))


@pytest.mark.parametrize("name", [*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
@pytest.mark.parametrize("seeds", [range(60), pytest.param(range(60, 1060), marks=pytest.mark.slow)])
def test_any_text_is_answered(name, seeds):
    env = make_env(name, (FAST | SLOW)[name])()
    try:
        task = env.tasks("train")[0]
        answers.reset(env, task, MOST)
        turns = 0
        for seed in seeds:
            turns += 1
            result = answers.step(env, text(random.Random(f"{name} {seed}")), MOST)
            assert 0 <= result.reward <= 1
            if result.done or turns == env.max_turns(task):
                answers.reset(env, task, MOST)
                turns = 0
    except EnvFault as fault:
        pytest.fail(f"seed {seed}: {fault}")
    finally:
        env.close()
