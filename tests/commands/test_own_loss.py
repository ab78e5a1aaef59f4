"""One's own loss through the command line: found in the current directory, clear words when it is none."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from coevo_jax.commands.cli import run_command
from coevo_jax.commands.train import main
from tests.tiny import write_config

ROOT = Path(__file__).parent.parent.parent
LOSSES = """\
import jax.numpy as jnp

def reduced(policy_chosen, policy_rejected, reference_chosen, reference_rejected, *, beta):
    return jnp.mean(policy_rejected - policy_chosen)

def counted(policy_chosen, policy_rejected, reference_chosen, reference_rejected, *, beta):
    return (policy_rejected > policy_chosen).astype(jnp.int32)

def short(policy_chosen, policy_rejected, *, beta):
    return policy_rejected - policy_chosen

def greedy(policy_chosen, policy_rejected, reference_chosen, reference_rejected, *, beta, tokens):
    return policy_rejected - policy_chosen

def rooted(policy_chosen, policy_rejected, reference_chosen, reference_rejected, *, beta):
    return jnp.sqrt(jnp.abs(policy_chosen - reference_chosen)) + policy_rejected

def raising(policy_chosen, policy_rejected, reference_chosen, reference_rejected, *, beta):
    raise KeyError("a bug of one's own")
"""

CASES = {
    "agents.target.loss=broken_ones:reduced": "agents.target.loss: the loss 'broken_ones:reduced': returned "
    "float32 [], expected one value per pair: float32 [3]",
    "agents.target.loss=broken_ones:counted": "returned int32 [3], expected one value per pair: float32 [3]",
    "agents.failure.loss=broken_ones:short": "agents.failure.loss: the loss 'broken_ones:short': found the "
    "signature (policy_chosen, policy_rejected, *, beta), expected (policy_chosen, policy_rejected, ",
    "agents.target.loss=broken_ones:greedy": "the parameter 'tokens' is no array of a pair (chosen_tokens, ",
    "agents.target.loss=broken_ones:rooted": "its gradient is not finite where policy and reference agree",
    "agents.target.loss=broken_ones:raising": 'KeyError: "a bug of one\'s own"',
    "agents.target.loss=broken_ones:redused": "has no function 'redused' (did you mean 'reduced'?)",
    "agents.target.loss={broken_ones:reduced: 1, sft: 1}": "agents.target.loss: the loss 'broken_ones:redu",
    "recipe.learn_target.expert_target.loss=broken_ones:reduced": "recipe: loss of expert_target: the loss",
    'agents.target.loss_options={"broken_ones:reduced": {}}': "broken_ones:reduced: this loss is not in use",
}


@pytest.mark.parametrize("override", sorted(CASES))
def test_what_is_no_loss_ends_with_one_message_and_2(override, tmp_path, monkeypatch, capsys, letters):
    (tmp_path / "broken_ones.py").write_text(LOSSES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train", str(write_config(tmp_path)), override])
    with pytest.raises(SystemExit) as stop:
        run_command(main)
    sys.modules.pop("broken_ones", None)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and len(error.splitlines()) == 1
    assert CASES[override] in error
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_python_m_finds_a_loss_in_the_current_directory(tmp_path):
    """The process a user starts: the loss is found, checked and refused there."""
    (tmp_path / "broken_ones.py").write_text(LOSSES)
    command = [sys.executable, "-m", "tests.letters_train", str(write_config(tmp_path))]
    done = subprocess.run(
        [*command, "agents.target.loss=broken_ones:reduced"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(
        "error: agents.target.loss: the loss 'broken_ones:reduced'"
    )
    assert not (tmp_path / "runs").exists()
