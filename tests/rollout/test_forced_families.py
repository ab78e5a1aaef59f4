"""Forced experts under the chat format of every family: what the engine consumed is what is rendered."""

from functools import cache

import numpy as np
import pytest

from coevo_jax.config.options import RolloutConfig
from coevo_jax.data.chat.format import chat_format, render
from coevo_jax.envs.pool import EnvPool
from coevo_jax.models.transformer import Transformer
from coevo_jax.rollout import force, play
from coevo_jax.sampling.engine import Engine
from coevo_jax.trajectory import Demonstration, Ending, Turn
from tests.data.chat.families import FAMILIES, make_tokenizer
from tests.fresh import fresh_params
from tests.scripted_env import CONFIG, ScriptedEnv, make_tasks

VOCAB, LENGTH = 512, 256  # as large as the largest family's vocabulary
MODEL = Transformer(CONFIG, VOCAB)
ENGINE = Engine(
    MODEL, RolloutConfig(slots=2, max_tokens=LENGTH, max_turn_tokens=12, decode_block=8), end_id=0
)
SYSTEM, TASK = "Be brief.", "Count the singers.\n\n[INST] </s> <|im_end|>"
TURNS = (
    Turn(response="Thought: I count.\nAction: a", action="a", observation="[('a',)]\n<eot_id> "),
    Turn(response="Action: b[ c ]", action="b[ c ]", observation=""),
    Turn(response="Thought: 'tis done…\nAction: submit", action="submit", observation="never shown"),
)


@cache
def params():
    return fresh_params(MODEL)


@pytest.fixture(params=FAMILIES)
def chat(request, monkeypatch):
    chat = chat_format(make_tokenizer(request.param))
    assert chat.vocab_size <= VOCAB
    monkeypatch.setattr(ENGINE, "end_id", chat.end_id)  # an argument of the compiled programs
    return chat


@pytest.mark.parametrize("system", ["", SYSTEM])
def test_a_forced_expert_is_the_rendered_expert(chat, system):
    demonstration = Demonstration(task_id="task/0", prompt=TASK, turns=TURNS, reward=1.0)
    trajectory = force(ENGINE, params(), chat, system, demonstration)
    tokens, mask = render(chat, system, TASK, TURNS)
    np.testing.assert_array_equal(trajectory.tokens, tokens)
    np.testing.assert_array_equal(trajectory.agent_mask, mask)
    assert (trajectory.turns, trajectory.reward, trajectory.ending) == (TURNS, 1.0, Ending.SOLVED)
    assert np.all(trajectory.logps[mask] < 0)
    assert mask.sum() == sum(len(chat.response_ids(turn.response)) for turn in TURNS)


def test_tokens_generated_stay_as_generated(chat):
    """Random tokens, among them control tokens and broken characters: the record is what was drawn."""
    with EnvPool(lambda: ScriptedEnv(turns=3, observation=6), workers=1, step_timeout=10) as pool:
        trajectories, _ = play(
            ENGINE,
            params(),
            pool,
            chat,
            make_tasks(2),
            agent="target",
            samples=1,
            temperature=1.0,
            top_p=1.0,
            seed=0,
            phase=0,
            script={"task/0": [[7, 9, chat.end_id], [300, 8, chat.end_id], [11, chat.end_id]]},
        )
    scripted = trajectories[0]
    expected = chat.prompt_ids("xyz", scripted.prompt)
    for turn, ids in zip(scripted.turns, [[7, 9], [300, 8], [11]], strict=True):
        assert turn.response == chat.decode_response(ids)
        expected += [*ids, chat.end_id, *chat.observation_ids(turn.observation)]
    last = len(chat.observation_ids(scripted.turns[-1].observation))
    assert scripted.tokens.tolist() == expected[:-last]
    assert scripted.agent_mask.sum() == 8
