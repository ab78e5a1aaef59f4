"""Options of roll-outs that would do nothing are refused, and the shipped ones are used."""

from pathlib import Path

import pytest

from coevo_jax.config.reading import load_config
from coevo_jax.config.strict import ConfigError

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["explore.temperature=0", "explore.top_k=5"],
            "explore.top_k: found 5, which does nothing: explore.temperature is 0",
        ),
        (["explore.temperature=0", "explore.top_p=0.9"], "explore.top_p: found 0.9, which does nothing"),
        (["explore.temperature=0", "explore.min_p=0.1"], "explore.min_p: found 0.1, which does nothing"),
        (
            ["env.process_memory_mib=99"],
            "env.process_memory_mib: found 99, .* env.processes is false",
        ),
        (["rollout.joining=at_onse"], "did you mean 'at_once'|at_once"),
    ],
)
def test_idle_options_are_refused(overrides, message):
    with pytest.raises(ConfigError, match=message):
        load_config(CONFIGS / "quickstart.yaml", overrides)


def test_playing_together_takes_two():
    with pytest.raises(ConfigError, match=r"explore\.together: found false, which does nothing"):
        load_config(CONFIGS / "quickstart-eto.yaml", ["explore.together=false"])


def test_shipped_configs_use_every_option_of_roll_outs():
    config = load_config(CONFIGS / "intercode-sql-accelerator.yaml", [])
    assert (config.explore.top_k, config.explore.top_p, config.explore.min_p) == (200, 0.98, 0.02)
    assert config.env.processes and config.env.process_memory_mib == 768
    assert config.rollout.stop_at_action_line and config.rollout.joining == "as_ready"
    slow = load_config(CONFIGS / "scienceworld.yaml", [])
    assert slow.rollout.joining == "next_block" and not slow.explore.together
