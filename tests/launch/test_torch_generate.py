"""Greedy turns of a roll-out are those of transformers' generate on the same weights, in PyTorch."""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from coevo_jax.models.huggingface.save import save_params, scratch_config, write_json
from tests.rollout.test_modes import stop_after
from tests.rollout.test_play import CHAT, LENGTH, PARAMS, agent_runs, play_with
from tests.scripted_env import CONFIG, MODEL, VOCAB, ScriptedEnv, make_engine

TURN = 4
TIE = 1e-4  # nats between the two best scores: below, either token is right


@pytest.mark.slow
def test_ten_greedy_turns_are_those_of_transformers(tmp_path):
    engine = make_engine(max_tokens=LENGTH, max_turn_tokens=TURN, stop=stop_after(TURN))
    make_env = partial(ScriptedEnv, ends_at=10, turns=12, observation=8)
    trajectories, _ = play_with(make_env, tasks=4, engine=engine, temperature=0.0)
    runs = [(t, start, stop) for t in trajectories for start, stop in agent_runs(t)]
    assert all(len(t.turns) == 10 for t in trajectories)

    save_params(tmp_path, PARAMS, CONFIG, dtype="float32")
    config = scratch_config(CONFIG, vocab_size=VOCAB, max_tokens=LENGTH, end_id=CHAT.end_id, pad_id=0)
    write_json(tmp_path / "config.json", config | {"eos_token_id": None})
    job = {"texts": [t.tokens[:start].tolist() for t, start, _ in runs], "count": TURN}
    (tmp_path / "job.json").write_text(json.dumps(job))
    script = Path(__file__).parent / "torch_generate.py"
    command = [sys.executable, script, tmp_path / "out.npz", tmp_path, tmp_path / "job.json"]
    subprocess.run(command, check=True, capture_output=True, text=True)
    theirs = np.load(tmp_path / "out.npz")
    same = 0
    for (trajectory, start, stop), tokens, best in zip(runs, theirs["tokens"], theirs["best"], strict=True):
        for place, (ours, other) in enumerate(zip(trajectory.tokens[start:stop], tokens, strict=False)):
            if ours != other:
                assert best[place, 0] - best[place, 1] < TIE
                break
            same += 1
    assert same >= 0.99 * sum(stop - start for _, start, stop in runs)
    assert MODEL.config.qk_norm
