"""An episode as it is played, in the terminal."""

import pytest

from coevo_jax.commands.actions.play import shade
from coevo_jax.commands.play import main
from coevo_jax.config.strict import ConfigError
from coevo_jax.progress import CONSOLE
from tests.old_run import unpack

pytestmark = pytest.mark.usefixtures("letters")


@pytest.fixture
def old_run(tmp_path):
    return unpack(tmp_path)


def test_doubt_is_seen():
    assert shade(0.0) == shade(-0.01) == ""
    assert shade(-0.2) < shade(-3.0) == "on rgb(194,40,40)"


def test_an_episode_is_shown_turn_by_turn(old_run):
    with CONSOLE.capture() as shown:
        main([str(old_run), "--agent", "failure", "--split", "train", "--task", "41"])
    text = shown.get()
    order = ["task train/41", "turn 1", "observation", "reward"]
    assert [text.index(word) for word in order] == sorted(text.index(word) for word in order)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--agent", "falure"], "no such agent .did you mean 'failure'"),
        (["--task", "900"], "letters's test split has 20 tasks, counted from 0"),
        (["--task", "test/3x"], "no task 'test/3x' .did you mean 'test/3'"),
        (["--temperature", "-1"], "--temperature: found -1.0"),
    ],
)
def test_what_cannot_be_played_is_refused(words, told, old_run):
    with pytest.raises(ConfigError, match=told):
        main([str(old_run), *words])
