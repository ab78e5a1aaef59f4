"""Every environment keeps the rules, and every rule finds the environment that breaks it."""

import re
import sys
import time

import pytest

from coevo_jax.commands.conformance import main
from coevo_jax.config.strict import ConfigError
from coevo_jax.envs.conformance import CHECKS, run_checks
from coevo_jax.envs.conformance import lists as list_checks
from coevo_jax.envs.env import Env
from coevo_jax.envs.registry import make_env
from tests import broken_envs
from tests.broken_envs import BROKEN
from tests.envs.tiny_alfworld import write_download

WAITING = ("faults", "leaks")  # checks that wait on purpose
HANG = 2.0  # seconds after which a call hangs: more than any pause of a busy machine
BREAKERS = [(check, make) for check, makers in BROKEN.items() for make in makers]

FAST = {
    "tests.letters_env:make_letters": {},
    "intercode_sql": {"train_databases": 2, "dev_databases": 1, "test_databases": 1, "train_tasks": 40},
    "webshop": {},
}


def failures(results) -> dict[str, str]:
    return {result.name: result.message for result in results if result.status == "failed"}


@pytest.mark.parametrize("name", FAST)
def test_the_environment_passes_every_check(name):
    results = run_checks(make_env(name, FAST[name]), tasks_per_split=2)
    assert not failures(results)
    assert [result.name for result in results] == list(CHECKS)
    skipped = {result.name for result in results if result.status == "skipped"}
    restores = name in ("intercode_sql", "webshop")
    assert skipped <= {"killed_process"} | (set() if restores else {"restored_states"})


@pytest.mark.slow
def test_textworld_passes_every_check():
    options = {"train_games": 8, "dev_games": 4, "test_games": 4}
    assert not failures(run_checks(make_env("textworld", options), tasks_per_split=1))


@pytest.mark.slow
@pytest.mark.skipif(sys.version_info >= (3, 13), reason="TextWorld cannot run ALFWorld's games there")
def test_alfworld_passes_every_check(tmp_path):
    """On the user's download where there is one, else on a made-up one."""
    make = make_env("alfworld", {})
    try:
        make().close()
    except ConfigError:
        options = {
            "data_path": str(write_download(tmp_path)),
            "experts_path": str(tmp_path / "experts.jsonl"),
        }
        make = make_env("alfworld", options)
    assert not failures(run_checks(make, tasks_per_split=1))


@pytest.mark.slow
def test_scienceworld_passes_every_check(tmp_path):
    families = ["find-living-thing", "lifespan-longest-lived", "chemistry-mix-paint-secondary-color"]
    options = {"families": families, "experts_path": str(tmp_path / "experts.jsonl"), "expert_workers": 1}
    results = run_checks(make_env("scienceworld", options), tasks_per_split=1)
    assert not failures(results)
    # The simulator keeps no states: a branch there plays its turns again.
    assert {result.name for result in results if result.status == "skipped"} == {"restored_states"}


MESSAGES = {
    broken_envs.TextFlag: r"deterministic: found 'yes', expected a bool",
    broken_envs.NoLimit: r"NoLimit has no method 'reward_at_limit'",
    broken_envs.Overlapping: r"task train/3 stands in train and in dev",
    broken_envs.Bonus: r"task train/\d+, action .* ended the episode with reward 1\.5, expected .* 0 to 1",
    broken_envs.NegativeAtLimit: r"reward_at_limit of task train/\d+ after the reset: found -0\.5, expected",
    broken_envs.TiresAfterThree: r"step\('.*'\) of task \w+/\d+ raised IndexError: no fourth turn",
    broken_envs.NewSecretAtEveryReset: r"is another task: turn 1, action '\[7\]': found the observation",
    broken_envs.KeepsNothing: r"snapshot of task \w+/\d+ after turn 0: found None, expected a state",
    broken_envs.WrongExpert: r"expert of task train/\d+: replayed to reward 0\.75, recorded is 1",
    broken_envs.LongExpert: r"expert of task train/\d+: found 5 turns, expected 1 to 4 \(max_turns\)",
    broken_envs.SpeechlessExpert: r"turn 1: the response 'look' reads as None, expected its action 'look'",
    broken_envs.CountsErrors: r"is_error\('[abc ]+'\): found 0, expected True or False",
    broken_envs.NeverContent: r"is_error\(''\): found True of the answer that solved task train/\d+",
    broken_envs.KnowsErrorsOfItsEpisode: r"is_error\('.*'\) raised TypeError",
    broken_envs.FearsNoise: r"action binary noise: step\(.*characters.* raised ValueError: embedded",
    broken_envs.HangsWhenClosed: r"reset of task train/\d+: no answer within 2 s",
    broken_envs.LeaksTemporaryFiles: r"found 3 temporary files \(left-behind-.*\) more, expected none",
    broken_envs.LeaksProcesses: r"found 3 processes \(\d+ sleep 60, .*\) more, expected none",
    broken_envs.OneAtATime: r"the next episode after an exception: OSError: address already in use",
}


@pytest.fixture
def tidy():
    broken_envs.LeaksThreads.released.clear()
    yield
    broken_envs.clean_up()


@pytest.mark.parametrize(("check", "make"), BREAKERS, ids=[f"{c}-{m.__name__}" for c, m in BREAKERS])
def test_a_check_alone_finds_what_breaks_its_rule(check, make, tidy):
    """Without the two checks that wait, where they are not the ones meant."""
    only = [name for name in CHECKS if name == check or name not in WAITING]
    found = failures(run_checks(make, tasks_per_split=1, call_timeout=HANG, only=only))
    assert list(found) == [check]
    assert re.search(MESSAGES.get(make, "."), found[check]), found[check]


@pytest.mark.slow
@pytest.mark.parametrize(("check", "make"), BREAKERS, ids=[f"{c}-{m.__name__}" for c, m in BREAKERS])
def test_among_all_checks_too(check, make, tidy):
    assert list(failures(run_checks(make, tasks_per_split=1, call_timeout=HANG))) == [check]


def test_every_check_has_an_environment_that_breaks_it():
    assert set(BROKEN) == set(CHECKS)


@pytest.mark.parametrize(
    "make", [broken_envs.Base, broken_envs.NotDeterministic, broken_envs.Mortal, broken_envs.Restores]
)
def test_a_sound_environment_passes(make):
    results = run_checks(make, tasks_per_split=1, call_timeout=HANG)
    assert not failures(results)
    killed = next(result for result in results if result.name == "killed_process")
    if make is broken_envs.Mortal:
        assert (killed.status, killed.message) == ("passed", "processes killed: 1; the step gave a fault")
    else:
        assert killed.status == "skipped"


def test_without_experts_their_check_is_skipped_and_says_so():
    results = run_checks(broken_envs.NoExperts, tasks_per_split=1, call_timeout=HANG)
    assert not failures(results)
    [experts] = [result for result in results if result.name == "experts"]
    assert (experts.status, experts.message) == (
        "skipped",
        "not applicable: no expert for any of the 3 tasks played",
    )


def test_a_hanging_step_fails_the_checks_that_meet_it_and_the_run_ends():
    class Hanging(broken_envs.Base):
        def step(self, action):
            time.sleep(3.0)
            return super().step(action)

    start = time.monotonic()
    results = run_checks(Hanging, tasks_per_split=1, call_timeout=1.0)
    assert time.monotonic() - start < 20
    assert list(failures(results)) == ["step_result"]
    assert "step('look') of task" in failures(results)["step_result"]


def test_the_table_of_methods_is_the_protocol():
    named = {name for name in vars(Env) if not name.startswith("_")} | set(Env.__annotations__)
    assert {*list_checks.METHODS, *list_checks.ATTRIBUTES} == named


def test_every_check_says_what_it_verifies():
    for name, check in CHECKS.items():
        sentence = (check.__doc__ or "").splitlines()[0]
        assert sentence.endswith(".") and len(sentence) > 30, name


def test_the_command_prints_the_table_and_its_exit_code_tells(capsys, monkeypatch):
    assert main(["tests.letters_env:make_letters", "seed=3", "--timeout", "2", "--tasks", "1"]) == 0
    seen = capsys.readouterr().out
    assert "27 passed, 0 failed, 2 skipped" in seen and "disjoint_splits" in seen
    assert main(["tests.letters_env:make_letters", "--check", "experts", "protocol"]) == 0
    assert "2 passed" in capsys.readouterr().out
    monkeypatch.setattr("tests.letters_env.LettersEnv.reward_at_limit", lambda self: 2.0)
    assert main(["tests.letters_env:make_letters", "--check", "reward_at_limit"]) == 1
    assert "found 2.0, expected" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lettters"], "expected one of intercode_sql"),
        (["intercode_sql", "seed"], "option 'seed': expected key=value"),
        (["intercode_sql", "sead=1"], "did you mean 'seed'"),
        (["intercode_sql", "--check", "expert"], "did you mean 'experts'"),
        (["intercode_sql", "--tasks", "0"], "--tasks: expected at least 1"),
        (["intercode_sql", "tasks_path=no/such.jsonl"], "no/such.jsonl"),
    ],
)
def test_a_users_error_is_one_message(arguments, message):
    with pytest.raises(ConfigError, match=message):
        main(arguments)
