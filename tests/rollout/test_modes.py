"""Episodes are the same however they are played: slots, joining of turns, side by side, in one batch."""

from dataclasses import replace
from functools import partial

import jax
import numpy as np
import pytest

from coevo_jax.config.options import LoraConfig
from coevo_jax.envs.pool import EnvPool
from coevo_jax.models.lora import merge
from coevo_jax.models.transformer import Transformer
from coevo_jax.rollout import EpisodeSet, play_together
from coevo_jax.sampling.engine import Request, Sampling
from coevo_jax.trajectory import Ending
from tests.fresh import fresh_adapters
from tests.rollout.test_play import CHAT, LENGTH, PARAMS, agent_runs, learner, play_with, text_of
from tests.scripted_env import MODEL, ScriptedEnv, SlowEnv, make_engine, make_tasks, random_params

SAMPLING = Sampling(root=jax.random.key(0), temperature=1.0)
TIMES = (
    "seconds",
    "decode_seconds",
    "prefill_seconds",
    "env_wait_seconds",
    "env_seconds",
    "env_latency",
)
JOINING = ["at_once", "next_block", "as_ready"]


def assert_same_episodes(found, expected):
    """The same episodes up to rounding. (A tie of two scores could part them; here there is none.)"""
    for one, other in zip(found, expected, strict=True):
        assert text_of(one) == text_of(other)
        np.testing.assert_allclose(one.logps, other.logps, atol=1e-4)


@pytest.mark.parametrize(
    ("slots", "joining"),
    [
        (1, "at_once"),
        (3, "next_block"),
        (3, "as_ready"),
        *(pytest.param(16, joining, marks=pytest.mark.slow) for joining in ("at_once", "as_ready")),
    ],
)
def test_episodes_do_not_depend_on_the_number_of_slots_or_on_when_turns_join(slots, joining):
    expected, _ = play_with(tasks=7, samples=3)  # 3 slots
    engine = make_engine(slots, max_tokens=LENGTH, joining=joining)
    found, stats = play_with(SlowEnv, tasks=7, samples=3, engine=engine)
    assert_same_episodes(found, expected)
    assert stats.prefix_hits == 21 - 1


def test_ten_turns_equal_a_full_prefill_before_every_turn():
    engine = make_engine(max_tokens=LENGTH, max_turn_tokens=6)
    script = {task.id: [[9, 8, CHAT.end_id]] * 10 for task in make_tasks(2)}
    make_env = partial(ScriptedEnv, ends_at=10, turns=12, observation=9)
    kept, _ = play_with(make_env, tasks=2, engine=engine, temperature=0.0, script=script)
    weights, greedy = engine.load(PARAMS), Sampling(root=jax.random.key(0), temperature=0.0)
    for trajectory in kept:
        assert len(trajectory.turns) == 10
        logps, logits = learner(trajectory.tokens)
        for start, stop in agent_runs(trajectory):
            engine.reset()
            engine.prefill(weights, {0: trajectory.tokens[:start]}, frozenset({0}))
            requests = {0: Request(budget=1, ids=(0, 0, 0, 0))}
            drawn = engine.decode(weights, requests, greedy, quota=1).fetch()[0]
            assert drawn.tokens[0] == logits[start - 1].argmax()
            np.testing.assert_allclose(trajectory.logps[start:stop], logps[start - 1 : stop - 1], atol=1e-4)


def test_ten_greedy_turns_equal_those_drawn_with_nothing_kept():
    engine = make_engine(max_tokens=LENGTH, max_turn_tokens=3, stop=stop_after(3))
    make_env = partial(ScriptedEnv, ends_at=10, turns=12, observation=9)
    kept, _ = play_with(make_env, tasks=2, engine=engine, temperature=0.0)
    weights, greedy = engine.load(PARAMS), Sampling(root=jax.random.key(0), temperature=0.0)
    for trajectory in kept:
        assert len(trajectory.turns) == 10
        for start, stop in agent_runs(trajectory):
            engine.reset()
            engine.prefill(weights, {0: trajectory.tokens[:start]}, frozenset({0}))
            requests = {0: Request(budget=3, ids=(0, 0, 0, 0))}
            drawn = engine.decode(weights, requests, greedy, quota=1).fetch()[0]
            assert drawn.tokens == trajectory.tokens[start:stop].tolist()


def test_samples_of_a_task_share_its_whole_prompt():
    _, stats = play_with(tasks=1, samples=3)
    prompt = CHAT.prompt_ids("xyz", ScriptedEnv().reset(make_tasks(1)[0]))
    assert (stats.prefix_hits, stats.prefix_tokens) == (2, 2 * (len(prompt) - 1))


def casts(shared=None, **weights):
    """Two agents on the same tasks; their phases differ, and so do their random keys."""
    return [
        EpisodeSet(
            agent=agent,
            weights=own if shared is None else shared,
            adapter=0 if shared is None else own,
            tasks=make_tasks(5),
            samples=2,
            phase=phase,
        )
        for phase, (agent, own) in enumerate(weights.items(), start=4)
    ]


@pytest.mark.parametrize("joining", JOINING)
def test_agents_that_play_together_play_what_they_play_alone(joining):
    engine = make_engine(max_tokens=LENGTH, joining=joining)
    both = casts(target=engine.load(PARAMS), failure=engine.load(random_params(1)))
    with EnvPool(SlowEnv, workers=2, step_timeout=10) as pool:
        together = play_together(engine, pool, CHAT, both, sampling=SAMPLING)
        programs = engine.compilations()
        alone = [play_together(engine, pool, CHAT, [one], sampling=SAMPLING)[0] for one in both]
    assert programs == engine.compilations() == engine.twin().compilations()
    for (found, stats), (expected, _), cast in zip(together, alone, both, strict=True):
        assert_same_episodes(found, expected)
        assert {t.agent for t in found} == {cast.agent}
        assert stats.episodes == 10 and stats.turns == sum(len(t.turns) for t in found)
    assert text_of(together[0][0][0]) != text_of(together[1][0][0])


def exactly(episodes):
    return [(t.tokens.tolist(), t.logps.tolist(), t.ending) for t in episodes]


def test_the_shared_prefix_is_computed_once_for_all_blocks_and_a_later_block_alone_is_the_same():
    prefix = CHAT.encode("<xyz|")
    engine = make_engine(max_tokens=LENGTH)
    weights = engine.load(PARAMS)
    own = dict(agent="target", samples=1, phase=4)
    blocks = [make_tasks(8)[:4], make_tasks(8)[4:]]

    def block(engine, number, weights=weights):
        casts = [EpisodeSet(weights=weights, tasks=blocks[number], **own)]
        with EnvPool(ScriptedEnv, workers=2, step_timeout=10) as pool:
            return play_together(engine, pool, CHAT, casts, sampling=SAMPLING, prefix=prefix)[0]

    (_, first), (later, second) = block(engine, 0), block(engine, 1)
    prompts = [len(CHAT.prompt_ids("xyz", ScriptedEnv().reset(task))) for task in blocks[1]]
    assert first.prefix_hits == second.prefix_hits == 4
    assert second.prefix_tokens == 4 * len(prefix)
    read = sum(len(t.tokens) - t.agent_mask.sum() for t in later)
    assert second.prefill_tokens == read - 4 * len(prefix) >= sum(prompts) - 4 * len(prefix)
    alone, resumed = block(make_engine(max_tokens=LENGTH), 1)
    assert exactly(alone) == exactly(later)
    assert resumed == replace(second, **{name: getattr(resumed, name) for name in TIMES})
    others, stats = block(engine, 1, engine.load(random_params(1)))
    assert stats.prefix_hits == 4 and exactly(others) != exactly(later)
    engine.reset()
    assert exactly(block(engine, 1)[0]) == exactly(later)


@pytest.mark.slow
def test_adapters_of_one_base_share_a_batch_and_play_what_their_merged_weights_play():
    lora = LoraConfig(rank=3, alpha=6.0)
    model = Transformer(MODEL.config.model_copy(update={"lora": lora}), MODEL.vocab_size)

    def adapters(seed):
        fresh = fresh_adapters(model, seed)
        keys = iter(jax.random.split(jax.random.key(seed + 9), 99))
        return jax.tree.map(lambda x: x + 0.2 * jax.random.normal(next(keys), x.shape), fresh)

    one, two = adapters(1), adapters(2)
    engine = make_engine(max_tokens=LENGTH, model=model)
    with EnvPool(ScriptedEnv, workers=2, step_timeout=10) as pool:
        both = casts(engine.load(PARAMS, [one, two]), target=0, failure=1)
        shared = play_together(engine, pool, CHAT, both, sampling=SAMPLING)
        kept = [
            play_together(engine, pool, CHAT, both, sampling=SAMPLING, prefix=CHAT.encode("<xyz|"))
            for _ in range(2)
        ]
        merged = casts(
            target=engine.load(merge(PARAMS, one, lora)), failure=engine.load(merge(PARAMS, two, lora))
        )
        alone = [play_together(engine, pool, CHAT, [cast], sampling=SAMPLING)[0] for cast in merged]
    for (found, _), (expected, _), (first, _), (second, stats) in zip(shared, alone, *kept, strict=True):
        assert_same_episodes(found, expected)
        assert_same_episodes(first, expected)
        assert exactly(first) == exactly(second)
        assert stats.prefix_hits == 20
    assert text_of(shared[0][0][0]) != text_of(shared[1][0][0])


def stop_after(tokens):
    """A stop table by which every turn ends after so many tokens, at the latest."""
    return np.repeat(np.arange(1, tokens + 1, dtype=np.int8)[:, None], MODEL.vocab_size, axis=1)


def test_a_turn_that_stops_at_its_actions_line_is_closed_for_the_agent():
    trajectories, _ = play_with(tasks=4, engine=make_engine(max_tokens=LENGTH, stop=stop_after(3)))
    stopped = 0
    for trajectory in trajectories:
        assert trajectory.ending is not Ending.TOKEN_LIMIT
        logps, _ = learner(trajectory.tokens)
        runs = agent_runs(trajectory)
        for start, stop in runs:
            assert stop - start <= 3
            np.testing.assert_allclose(trajectory.logps[start:stop], logps[start - 1 : stop - 1], atol=1e-4)
        for _, stop in runs[:-1]:
            if trajectory.tokens[stop - 1] != CHAT.end_id:
                stopped += 1
                assert trajectory.tokens[stop] == CHAT.end_id
    assert stopped > 3


@pytest.mark.parametrize("joining", JOINING)
def test_an_environment_that_dies_at_every_step_ends_every_episode(joining):
    engine = make_engine(max_tokens=LENGTH, joining=joining)
    make_env = partial(ScriptedEnv, fail=frozenset(range(9)))
    trajectories, stats = play_with(make_env, tasks=5, samples=2, engine=engine)
    assert [t.ending for t in trajectories] == [Ending.FAULT] * 10
    assert stats.values()["ending_fault"] == stats.values()["faults"] == 10


def test_the_metrics_say_where_the_time_went():
    _, stats = play_with(SlowEnv, tasks=6)
    values = stats.values()
    assert 0 < stats.decode_seconds + stats.prefill_seconds <= stats.seconds * 1.01
    assert 0 < values["device_busy_share"] <= 1.01 and 0 <= values["env_wait_share"] <= 1
    assert 0 < values["env_p50_seconds"] <= values["env_p95_seconds"] <= values["env_p99_seconds"] < 1
    assert values["prefix_hits"] == stats.prefix_hits > 0
    assert 0 <= values["prefill_padding"] < 1


@pytest.mark.parametrize("most", [1, 2, 3])
def test_slots_are_cut_to_what_an_environment_can_play_at_a_time(most):
    """Three slots of each of two agents; the episodes are those of all slots."""
    playing, highest = [0], [0]

    class Counted(ScriptedEnv):
        def __init__(self):
            super().__init__()
            playing[0] += 1
            highest[0] = max(highest[0], playing[0])

        def close(self):
            playing[0] -= 1

    engine = make_engine(max_tokens=LENGTH)
    both = casts(target=engine.load(PARAMS), failure=engine.load(random_params(1)))
    with EnvPool(ScriptedEnv, workers=2, step_timeout=10) as pool:
        expected = play_together(engine, pool, CHAT, both, sampling=SAMPLING)
    with EnvPool(Counted, workers=2, step_timeout=10, most=most) as pool:
        found = play_together(engine, pool, CHAT, both, sampling=SAMPLING)
        again = play_together(engine, pool, CHAT, both[:1], sampling=SAMPLING)
    assert highest[0] == most
    for (own, _), (wanted, _) in zip([*found, *again], [*expected, expected[0]], strict=True):
        assert_same_episodes(own, wanted)
