"""Episodes end to end, with a tiny random model and scripted environments."""

import io
import time
from itertools import pairwise

import jax
import numpy as np
import pytest
from rich.console import Console

from coevo_jax.config.strict import ConfigError
from coevo_jax.data.chat.format import render
from coevo_jax.envs.pool import EnvPool
from coevo_jax.learning.head import scored_logps
from coevo_jax.models.transformer import output_head, output_logits
from coevo_jax.rollout import force, lane, play
from coevo_jax.trajectory import Demonstration, Ending, Turn
from tests.scripted_env import MODEL, CharChat, ScriptedEnv, SlowEnv, make_engine, make_tasks, random_params

PARAMS = random_params()
CHAT = CharChat()
LENGTH = 160
ENGINE = make_engine(max_tokens=LENGTH)


def play_with(
    make_env=ScriptedEnv, *, tasks=4, engine=ENGINE, chat=CHAT, workers=2, step_timeout=10.0, **options
):
    arguments = {"agent": "target", "samples": 1, "temperature": 1.0, "top_p": 1.0, "seed": 0, "phase": 0}
    with EnvPool(make_env, workers=workers, step_timeout=step_timeout) as pool:
        return play(engine, PARAMS, pool, chat, make_tasks(tasks), **{**arguments, **options})


@jax.jit
def score(row):
    """Log-probability and greedy continuation of each position of one row, by the learner's forward pass."""
    positions = np.arange(LENGTH, dtype=np.int32)[None]
    hidden = MODEL.apply({"params": PARAMS}, row, positions, np.full_like(positions, LENGTH))
    logps = scored_logps(output_head(PARAMS), hidden[:, :-1], row[:, 1:], np.array([LENGTH - 1]))
    return logps[0], output_logits(PARAMS, hidden)[0]


def learner(tokens):
    row = np.zeros((1, LENGTH), np.int32)
    row[0, : len(tokens)] = tokens
    return tuple(np.asarray(part) for part in score(row))


def text_of(trajectory):
    return (trajectory.tokens.tolist(), trajectory.agent_mask.tolist(), trajectory.turns, trajectory.ending)


def agent_runs(trajectory):
    """Start and stop of each stretch of agent tokens."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], trajectory.agent_mask, [0]]).astype(int)))
    return [tuple(pair) for pair in edges.reshape(-1, 2).tolist()]


def assert_well_formed(trajectory):
    """Tokens, mask and turns tell one story: the agent has the last word, and each turn is one run."""
    assert len(trajectory.tokens) == len(trajectory.agent_mask) == len(trajectory.logps) <= LENGTH
    assert trajectory.agent_mask[-1]
    assert np.all(trajectory.logps[~trajectory.agent_mask] == 0)
    assert np.all(trajectory.logps[trajectory.agent_mask] < 0)
    runs = agent_runs(trajectory)
    assert len(runs) == len(trajectory.turns)
    ids = CHAT.prompt_ids("xyz", trajectory.prompt)
    assert trajectory.tokens[: runs[0][0]].tolist() == ids
    for turn, (start, stop) in zip(trajectory.turns, runs, strict=True):
        assert turn.response == CHAT.decode_response(trajectory.tokens[start:stop])
    for turn, ((_, stop), (start, _)) in zip(trajectory.turns, pairwise(runs), strict=False):
        assert trajectory.tokens[stop - 1] == CHAT.end_id
        assert trajectory.tokens[stop:start].tolist() == CHAT.observation_ids(turn.observation)


def test_recorded_logps_are_those_of_the_learner():
    trajectories, stats = play_with(tasks=12, temperature=0.8, top_p=0.9, samples=2)
    assert stats.episodes == 24
    for trajectory in trajectories:
        assert_well_formed(trajectory)
        logps, _ = learner(trajectory.tokens)
        expected = np.concatenate([[0.0], logps[: len(trajectory.tokens) - 1]])
        np.testing.assert_allclose(
            trajectory.logps, np.where(trajectory.agent_mask, expected, 0.0), atol=1e-4
        )
    assert sum(len(trajectory.turns) > 1 for trajectory in trajectories) > 3


def test_greedy_turns_equal_a_full_forward_pass_for_every_token():
    engine = make_engine(max_tokens=LENGTH, max_turn_tokens=6)
    forced_end = [[9, 8, CHAT.end_id]]
    script = {task.id: forced_end * 8 for task in make_tasks(3)}

    def make_env():
        return ScriptedEnv(ends_at=9, turns=8, observation=12)

    scripted, _ = play_with(make_env, tasks=3, engine=engine, temperature=0.0, script=script)
    greedy, _ = play_with(make_env, tasks=3, engine=engine, temperature=0.0)
    assert all(len(trajectory.turns) >= 6 for trajectory in scripted)
    for trajectory in [*scripted, *greedy]:
        logps, logits = learner(trajectory.tokens)
        for start, stop in agent_runs(trajectory):
            np.testing.assert_allclose(trajectory.logps[start:stop], logps[start - 1 : stop - 1], atol=1e-4)
    for trajectory in greedy:
        _, logits = learner(trajectory.tokens)
        produced = np.flatnonzero(trajectory.agent_mask)
        best = logits[produced - 1].max(axis=-1)
        chosen = logits[produced - 1, trajectory.tokens[produced]]
        np.testing.assert_allclose(chosen, best, atol=1e-4)


def test_episodes_do_not_depend_on_the_other_tasks():
    all_of_them, _ = play_with(tasks=5)
    with EnvPool(ScriptedEnv, workers=2, step_timeout=10) as pool:
        options = {"samples": 1, "temperature": 1.0, "top_p": 1.0, "seed": 0, "phase": 0}
        alone, _ = play(ENGINE, PARAMS, pool, CHAT, make_tasks(5)[3:4], agent="target", **options)
    assert text_of(alone[0]) == text_of(all_of_them[3])


@pytest.mark.parametrize("joining", ["at_once", "next_block"])
def test_a_rerun_is_bit_identical_however_slow_the_environments_are(joining):
    engine = ENGINE if joining == "at_once" else make_engine(max_tokens=LENGTH, joining=joining)
    runs = [play_with(make_env, tasks=8, engine=engine)[0] for make_env in (SlowEnv, SlowEnv, ScriptedEnv)]
    for one, two, three in zip(*runs, strict=True):
        assert text_of(one) == text_of(two) == text_of(three)
        assert one.logps.tobytes() == two.logps.tobytes() == three.logps.tobytes()


def test_seed_phase_and_sample_change_the_text_and_order_follows_task_and_sample():
    trajectories, _ = play_with(tasks=2, samples=2)
    assert [(t.task_id, t.sample) for t in trajectories] == [
        ("task/0", 0),
        ("task/0", 1),
        ("task/1", 0),
        ("task/1", 1),
    ]
    texts = [trajectories[0].tokens.tolist(), trajectories[1].tokens.tolist()]
    for options in ({"seed": 1}, {"phase": 1}):
        texts.append(play_with(tasks=2, **options)[0][0].tokens.tolist())
    assert len({tuple(text) for text in texts}) == 4


class RenderChat(CharChat):
    """The same text back from the tokens, as a real tokenizer gives it."""

    def decode_response(self, ids):
        return "".join(self.letters[id] for id in ids if id != self.end_id)

    @property
    def letters(self):
        return {self.encode(letter)[0]: letter for letter in "Action: <>bcdefghijklmpqr"}


@pytest.mark.parametrize(("reward", "ending"), [(1.0, Ending.SOLVED), (0.4, Ending.FAILED)])
def test_a_forced_expert_is_the_rendered_expert(reward, ending):
    chat = RenderChat()
    turns = tuple(
        Turn(response=f"ci dce\nAction: {word}".replace("\n", " "), action=word, observation=word * 2)
        for word in ("bcd", "efghijklmp", "q")
    )
    demonstration = Demonstration(task_id="task/0", prompt="bcd de", turns=turns, reward=reward)
    trajectory = force(ENGINE, PARAMS, chat, "xyz", demonstration)
    tokens, mask = render(chat, "xyz", "bcd de", turns)  # pyright: ignore[reportArgumentType]
    np.testing.assert_array_equal(trajectory.tokens, tokens)
    np.testing.assert_array_equal(trajectory.agent_mask, mask)
    assert (trajectory.turns, trajectory.reward, trajectory.ending) == (turns, reward, ending)
    logps, _ = learner(tokens)
    np.testing.assert_allclose(trajectory.logps[mask], logps[: len(tokens) - 1][mask[1:]], atol=1e-4)


def test_forcing_a_turn_without_an_action_is_refused():
    turn = Turn(response="bcd", action="", observation="")
    demonstration = Demonstration(task_id="task/0", prompt="b", turns=(turn,), reward=1.0)
    with pytest.raises(ValueError, match="task/0"):
        force(ENGINE, PARAMS, CHAT, "xyz", demonstration)


def scripted(tasks, *turns):
    return {task.id: list(turns) for task in make_tasks(tasks)}


def test_endings_by_the_environment():
    script = scripted(4, *[[5, 6, 1]] * 6)
    solved, stats = play_with(script=script)
    assert {(t.ending, t.reward, t.success, len(t.turns)) for t in solved} == {(Ending.SOLVED, 1.0, True, 4)}
    failed, _ = play_with(lambda: ScriptedEnv(final_reward=0.5), script=script)
    assert {(t.ending, t.reward, t.failure) for t in failed} == {(Ending.FAILED, 0.5, True)}
    assert all(t.turns[-1].observation for t in solved)
    assert (stats.turns, stats.agent_tokens, stats.mean_reward) == (16, 48, 1.0)
    assert stats.endings == {"solved": 4, "failed": 0, "turn_limit": 0, "token_limit": 0, "fault": 0}
    assert 0 < stats.occupancy <= 1
    given = sum(int((~t.agent_mask).sum()) for t in solved)
    assert stats.prefill_tokens + stats.prefix_tokens == given
    assert stats.prefix_hits == 3 and stats.prefix_tokens >= 3 * len("<xyz|")
    assert stats.env_calls == 4 * 5  # a reset and four turns


def test_the_turn_limit_asks_for_the_reward():
    trajectories, _ = play_with(lambda: ScriptedEnv(turns=3), script=scripted(4, *[[5, 1]] * 6))
    for trajectory in trajectories:
        assert_well_formed(trajectory)
        assert (trajectory.ending, trajectory.reward) == (Ending.TURN_LIMIT, 0.25)
        assert len(trajectory.turns) == 3 and trajectory.turns[-1].observation


def test_a_turn_that_never_ends_keeps_its_tokens_and_gets_no_end_token():
    engine = make_engine(max_tokens=LENGTH, max_turn_tokens=3)
    trajectories, _ = play_with(tasks=9, engine=engine)
    cut = [t for t in trajectories if t.ending is Ending.TOKEN_LIMIT]
    assert cut
    for trajectory in cut:
        assert_well_formed(trajectory)
        start, stop = agent_runs(trajectory)[-1]
        assert stop - start == 3
        assert CHAT.end_id not in trajectory.tokens[start:stop]
        assert (trajectory.reward, trajectory.turns[-1].action) == (0.25, "")


def test_a_full_cache_ends_the_episode():
    script = scripted(3, [5, 6, 1], [7] * 200)
    trajectories, _ = play_with(tasks=3, script=script)
    for trajectory in trajectories:
        assert_well_formed(trajectory)
        assert (trajectory.ending, len(trajectory.tokens)) == (Ending.TOKEN_LIMIT, LENGTH)
        assert trajectory.tokens[-1] == 7


def test_an_observation_that_does_not_fit_is_recorded_but_not_read():
    trajectories, _ = play_with(
        lambda: ScriptedEnv(observation=80), tasks=3, script=scripted(3, *[[5, 6, 1]] * 6)
    )
    for trajectory in trajectories:
        assert_well_formed(trajectory)
        assert trajectory.ending is Ending.TOKEN_LIMIT
        assert trajectory.tokens[-1] == CHAT.end_id
        last = CHAT.observation_ids(trajectory.turns[-1].observation)
        assert len(trajectory.tokens) + len(last) >= LENGTH


def test_a_prompt_that_does_not_fit_leaves_no_tokens():
    trajectories, stats = play_with(lambda: ScriptedEnv(observation=400), tasks=4)
    assert {(t.ending, t.reward, len(t.tokens), t.turns) for t in trajectories} == {
        (Ending.TOKEN_LIMIT, 0.25, 0, ())
    }
    assert stats.agent_tokens == stats.token_places == 0


def test_a_malformed_answer_costs_a_turn_and_never_reaches_the_environment():
    chat, envs = RenderChat(always_acts=False), []

    def make_env():
        envs.append(ScriptedEnv(turns=3, observation=2))
        return envs[-1]

    script = scripted(
        2, chat.response_ids("bcd"), chat.response_ids("Action: e"), chat.response_ids("Action: ")
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lane, "MALFORMED", "Tbcd e")
        trajectories, _ = play_with(make_env, tasks=2, chat=chat, script=script)
    assert lane.MALFORMED.startswith("Invalid action")
    for trajectory in trajectories:
        assert [turn.action for turn in trajectory.turns] == ["", "e", ""]
        assert trajectory.turns[0].observation == trajectory.turns[2].observation == "Tbcd e"
        assert trajectory.ending is Ending.TURN_LIMIT
        stop, start = agent_runs(trajectory)[0][1], agent_runs(trajectory)[1][0]
        assert trajectory.tokens[stop:start].tolist() == chat.observation_ids("Tbcd e")
    assert [env.turn for env in envs] == [1] * len(envs)


@pytest.mark.parametrize("turn", [0, 1, 2])
def test_an_environment_that_breaks_is_a_fault_and_is_replaced(turn):
    envs = []

    def make_env():
        envs.append(ScriptedEnv(fail=frozenset({turn})))
        return envs[-1]

    trajectories, stats = play_with(make_env, tasks=5, script=scripted(5, *[[5, 6, 1]] * 6))
    assert [t.ending for t in trajectories] == [Ending.FAULT] * 5
    assert not any(t.failure or t.success for t in trajectories)
    assert all(len(t.turns) == turn for t in trajectories)
    assert {t.fault for t in trajectories} == {"broken" if turn % 2 else "RuntimeError: broken"}
    assert (stats.faults, stats.mean_reward, len(envs)) == (5, 0.0, 5)
    assert all(env.closed for env in envs)


def test_a_hung_environment_times_out_while_the_others_play_on():
    envs = []

    def make_env():
        hung = frozenset({2}) if len(envs) < 2 else frozenset()
        envs.append(ScriptedEnv(hang=hung))
        return envs[-1]

    start = time.monotonic()
    trajectories, stats = play_with(
        make_env, tasks=6, workers=2, step_timeout=0.4, script=scripted(6, *[[5, 6, 1]] * 6)
    )
    assert time.monotonic() - start < 15
    assert sorted(t.ending for t in trajectories) == ["fault"] * 2 + ["solved"] * 4
    assert stats.faults == 2
    assert all(env.closed for env in envs)


def test_environments_that_always_hang_do_not_hang_the_block():
    trajectories, _ = play_with(
        lambda: ScriptedEnv(hang=frozenset({0})), tasks=4, workers=1, step_timeout=0.05
    )
    assert [t.ending for t in trajectories] == [Ending.FAULT] * 4


def test_environments_are_reused_across_calls_and_closed_with_the_pool():
    envs = []

    def make_env():
        envs.append(ScriptedEnv())
        return envs[-1]

    options = {"agent": "target", "samples": 1, "temperature": 1.0, "top_p": 1.0, "seed": 0, "phase": 0}
    with EnvPool(make_env, workers=2, step_timeout=10) as pool:
        for _ in range(2):
            play(ENGINE, PARAMS, pool, CHAT, make_tasks(5), **options)
        assert len(envs) == 3
        assert not any(env.closed for env in envs)
    assert [env.closed for env in envs] == [1, 1, 1]


def test_a_config_error_of_the_environment_is_raised():
    def make_env():
        raise ConfigError("env.options: no such folder")

    with pytest.raises(ConfigError, match="no such folder"):
        play_with(make_env)


def test_zero_tasks():
    trajectories, stats = play_with(tasks=0)
    assert trajectories == []
    assert (stats.episodes, stats.mean_reward, stats.occupancy) == (0, 0.0, 0.0)


@pytest.mark.parametrize("terminal", [False, True])
def test_progress_on_a_terminal_and_elsewhere(terminal):
    out = io.StringIO()
    play_with(tasks=2, progress=Console(file=out, force_terminal=terminal, width=120), label="first round")
    assert "first round" in out.getvalue() and "2/2" in out.getvalue() and "tokens/s" in out.getvalue()
    assert ("\x1b" in out.getvalue()) == terminal
    assert terminal or out.getvalue().count("\n") == 1


class Asks(ScriptedEnv):
    """The tasks with words in front of and behind their texts."""

    def reset(self, task):
        return f"cd {super().reset(task)} de"


def test_an_episode_under_a_mark_is_that_of_an_environment_that_asks_so():
    """The mark is part of what the agent sees, of the record and of nothing else."""
    under, _ = play_with(mark="cd {task} de")
    asked, _ = play_with(Asks)
    assert [text_of(one) for one in under] == [text_of(one) for one in asked]
    assert [one.prompt for one in under] == [one.prompt for one in asked]
    assert {one.mark for one in under} == {"cd {task} de"} and {one.mark for one in asked} == {""}
    plain, _ = play_with()
    assert [one.prompt for one in under] == [f"cd {one.prompt} de" for one in plain]
    for one in under:
        assert_well_formed(one)
