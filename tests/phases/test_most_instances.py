"""Slots of a run are cut to what its environment can play at a time."""

import pytest

from coevo_jax.config.strict import ConfigError
from coevo_jax.envs.env import EnvFault
from coevo_jax.phases.world import _most_instances
from tests.letters_env import LettersEnv, LettersOptions
from tests.tiny import tiny_config


class Limited(LettersEnv):
    def __init__(self, most):
        super().__init__(LettersOptions())
        self.most, self.asked = most, 0

    def most_instances(self, wanted):
        self.asked = wanted
        if self.most is None:
            raise EnvFault("nobody answers")
        return min(self.most, wanted)


@pytest.mark.parametrize(("most", "expected"), [(3, 3), (8, None), (99, None)])
def test_of_two_agents_that_explore_together(most, expected, letters, tmp_path, capsys):
    env = Limited(most)
    assert _most_instances(tiny_config(tmp_path), env) == expected
    assert env.asked == 8  # rollout.slots of each
    said = " ".join(capsys.readouterr().out.split())
    assert ("of 8 slots, 3 are used" in said) == (expected is not None)


def test_of_one_agent_at_a_time_and_of_an_environment_without_a_limit(letters, tmp_path):
    env = Limited(2)
    assert _most_instances(tiny_config(tmp_path, "explore.together=false"), env) == 2
    assert env.asked == 4
    assert _most_instances(tiny_config(tmp_path), LettersEnv(LettersOptions())) is None


@pytest.mark.parametrize(("most", "message"), [(0, "no place for an instance"), (None, "nobody answers")])
def test_where_not_even_one_can_play_it_is_one_message(most, message, letters, tmp_path):
    with pytest.raises(ConfigError, match=message):
        _most_instances(tiny_config(tmp_path), Limited(most))
