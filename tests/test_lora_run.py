"""Runs whose agents are adapters: what they store, that they can be killed, evaluated and exported."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from coevo_jax.coevolution import coevolve
from coevo_jax.commands.evaluate import main as evaluate_main
from coevo_jax.commands.export import main as export_main
from coevo_jax.config.options import ModelConfig
from coevo_jax.config.reading import load_config
from coevo_jax.config.strict import ConfigError
from coevo_jax.data.parquet import read_trajectories
from coevo_jax.learning.optimizer import make_optimizer
from coevo_jax.learning.train_state import Learner, make_learner
from coevo_jax.models.huggingface.names import entries
from coevo_jax.models.huggingface.save import scratch_config
from coevo_jax.models.lora import model_variables, whole_params
from coevo_jax.models.transformer import Transformer, output_logits
from coevo_jax.phases.agents import load_agent
from coevo_jax.run_folder.checkpoint import BASE, Checkpointer
from coevo_jax.run_folder.manifest import read_manifest
from coevo_jax.run_folder.run import Run, create_run, open_run
from coevo_jax.sharding import make_mesh
from coevo_jax.stored.export import export_agent
from tests.fresh import fresh_params
from tests.measured import curve, results
from tests.peers import peers_path
from tests.tiny import coevolve_through_kills, kill_at_commits, tiny_config, write_config

pytestmark = [pytest.mark.usefixtures("letters"), pytest.mark.slow]

WARM = "warm_start.epochs=4"
SHORT = (WARM, "explore.tasks=['40:50']", "agents.target.learning_rate=[1e-2]")
FULL = ("model.lora.rank=4", *SHORT)
ADAPTER = ("model.lora={rank: 4, warm_start: adapter}", *SHORT)


def started(folder: Path, *overrides: str) -> Run:
    folder.mkdir(exist_ok=True)
    return create_run(tiny_config(folder, *overrides))


def finished(folder: Path, *overrides: str) -> Run:
    run = started(folder, *overrides)
    coevolve(run)
    run.close()
    return run


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return finished(tmp_path_factory.mktemp("whole"), *FULL)


def learner_of(run: Run) -> Learner:
    record = read_manifest(run.folder).record("prepare")
    assert record is not None
    model = Transformer(run.config.model, record.records["vocab_size"])
    return make_learner(model, make_optimizer(run.config.optimizer), make_mesh(run.config.mesh))


def stored(run: Run, agent: str):
    return load_agent(run.folder, read_manifest(run.folder), agent, learner_of(run))


def same(tree, other):
    jax.tree.map(np.testing.assert_array_equal, tree, other)


def test_the_base_is_stored_once_and_agents_are_adapters(whole):
    manifest, folder = read_manifest(whole.folder), whole.folder / "checkpoints"
    assert manifest.base is not None and manifest.base < manifest.checkpoint
    assert [path.parent.name for path in folder.glob(f"*/{BASE}")] == [str(manifest.base)]
    target, failure = stored(whole, "target"), stored(whole, "failure")
    same(target.frozen, failure.frozen)
    for factors, others in zip(*(a.params["layers"].values() for a in (target, failure)), strict=True):
        assert np.abs(factors["b"]).max() > 0 and np.abs(others["b"]).max() > 0
        assert not np.array_equal(factors["b"], others["b"])
    checkpoints = Checkpointer(folder)
    first = checkpoints.restore(manifest.base, {"target": learner_of(whole).abstract()})["target"]
    checkpoints.close()
    assert all(not np.any(factors["b"]) for factors in first.params["layers"].values())
    assert int(first.step) == len(read_steps(whole, "warm_start")) > 0


def read_steps(run: Run, phase: str) -> list[int]:
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    return [line["step"] for line in lines if line["phase"] == phase]


def test_agents_that_explore_in_one_batch_play_what_they_play_one_after_the_other(whole, tmp_path):
    apart = finished(tmp_path, *FULL, "explore.together=false")
    for agent in ("target", "failure"):
        together, alone = (
            read_trajectories(sorted(run.folder.glob(f"trajectories/round-01/{agent}-*.parquet")))
            for run in (whole, apart)
        )
        assert len(together) == len(alone) > 5
        assert {trajectory.agent for trajectory in together} == {agent}
        for one, other in zip(together, alone, strict=True):
            assert one.turns == other.turns and one.tokens.tolist() == other.tokens.tolist()
            np.testing.assert_allclose(one.logps, other.logps, atol=1e-4)
    lines = [json.loads(line) for line in (whole.folder / "metrics.jsonl").read_text().splitlines()]
    target, failure = (
        [
            line["values"]["rollout/prefix_hits"]
            for line in lines
            if line["phase"] == f"round-01/explore_{agent}" and "rollout/prefix_hits" in line["values"]
        ]
        for agent in ("target", "failure")
    )
    assert target == failure and sum(target) > 0  # the counts of the one engine stand with both


def test_a_damaged_base_is_named(whole, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(whole.folder, copy)
    manifest = read_manifest(copy)
    name = next(name for name in sorted(manifest.base_files) if name.startswith(f"{BASE}/d/"))
    victim = copy / "checkpoints" / str(manifest.base) / name
    victim.write_bytes(victim.read_bytes()[:-1])
    with pytest.raises(ConfigError, match=f"{victim}: .* the checkpoint is incomplete"):
        open_run(copy)


def test_evaluation_plays_the_agent_with_its_adapter(whole, capsys):
    evaluate_main([str(whole.folder), "--agent", "target", "--split", "dev"])
    found = json.loads((whole.folder / "evaluations" / "target-dev.json").read_text())
    results = json.loads((whole.folder / "results.json").read_text())
    last = [e for e in results["evaluations"] if e["agent"] == "target"][-1]
    assert found["mean_reward"] == last["mean_reward"] and found["n"] == last["n"]
    episode = read_trajectories([whole.folder / "evaluations" / "target-dev.parquet"])[0]
    agent, learner, length = stored(whole, "target"), learner_of(whole), len(episode.tokens)
    hidden = jax.jit(learner.model.apply)(
        model_variables(agent.params, agent.frozen),
        episode.tokens[None],
        np.arange(length)[None],
        np.full((1, length), length),
    )
    logps = jax.nn.log_softmax(output_logits(agent.frozen, hidden))[0]
    own = np.flatnonzero(episode.agent_mask)
    np.testing.assert_allclose(episode.logps[own], logps[own - 1, episode.tokens[own]], atol=1e-4)


def test_exports_hold_the_agents_numbers_and_overwrite_nothing(whole, tmp_path, capsys):
    agent = stored(whole, "failure")
    merged, adapter = tmp_path / "merged", tmp_path / "deep" / "adapter"
    export_main([str(whole.folder), "--agent", "failure", "--out", str(merged)])
    export_main([str(whole.folder), "--agent", "failure", "--out", str(adapter), "--adapter"])
    said = capsys.readouterr().out
    assert str(merged / "model.safetensors") in said
    assert "weights in float32: log-probabilities of" in said and "a base in" not in said  # stored as it is
    export_main(
        [str(whole.folder), "--agent", "failure", "--out", str(tmp_path / "h"), "--dtype", "bfloat16"]
    )
    moved = re.search(
        r"weights in bfloat16: .* move by at most (\S+), root mean square (\S+)", capsys.readouterr().out
    )
    assert moved is not None and 0 < float(moved[2]) <= float(moved[1]) < 1
    shutil.rmtree(tmp_path / "h")
    lora, tensors = whole.config.model.lora, load_file(merged / "model.safetensors")
    factors, base = (
        load_file(adapter / "adapter_model.safetensors"),
        load_file(adapter / "base/model.safetensors"),
    )
    for name, tensor in tensors.items():
        prefix = f"base_model.model.{name.removesuffix('.weight')}"
        expected = base[name]
        if f"{prefix}.lora_A.weight" in factors:
            expected = expected + lora.scale * (
                factors[f"{prefix}.lora_B.weight"] @ factors[f"{prefix}.lora_A.weight"]
            )
        np.testing.assert_allclose(tensor, expected, atol=1e-6)
    assert len(factors) == 2 * 7 * whole.config.model.num_layers
    query = np.asarray(agent.frozen["layers"]["query"][1])
    np.testing.assert_array_equal(base["model.layers.1.self_attn.q_proj.weight"], query.reshape(32, -1).T)
    assert (merged / "tokenizer.json").read_bytes() == (
        whole.folder / "tokenizer/tokenizer.json"
    ).read_bytes()
    before = {path: path.read_bytes() for path in merged.rglob("*")}
    with pytest.raises(ConfigError, match="nothing is overwritten"):
        export_main([str(whole.folder), "--out", str(merged)])
    assert {path: path.read_bytes() for path in merged.rglob("*")} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep", "merged"]


def test_what_cannot_be_exported_is_refused(tmp_path):
    run = started(tmp_path)
    run.close()
    with pytest.raises(ConfigError, match=r"no adapters .* use --merged"):
        export_agent(run.folder, tmp_path / "out", agent="target", form="adapter")
    with pytest.raises(ConfigError, match="warm start is not finished"):
        export_agent(run.folder, tmp_path / "out", agent="target", form="merged")
    with pytest.raises(ConfigError, match=r"model\.qk_norm: found false"):
        scratch_config(ModelConfig(qk_norm=False), vocab_size=9, max_tokens=9, end_id=0, pad_id=0)
    assert not (tmp_path / "out").exists()


IMPOSSIBLE = {
    "{target_modules: [querry]}": r"did you mean 'query'",
    "{target_modules: [up, up]}": r"up stands twice",
    "{target_modules: []}": r"the list is empty",
    "{rank: 33}": r"rank 33 exceeds the 32 of the narrower side of query",
    "{rank: 0}": r"lora\.rank: found 0",
    "{rnk: 4}": r"did you mean 'rank'",
}


@pytest.mark.parametrize("lora", sorted(IMPOSSIBLE))
def test_impossible_adapters_are_refused(lora, tmp_path):
    with pytest.raises(ConfigError, match=IMPOSSIBLE[lora]):
        load_config(write_config(tmp_path), [f"model.lora={lora}"])


def test_adapters_that_would_never_learn_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="does nothing: rounds is 0"):
        load_config(write_config(tmp_path), ["model.lora.rank=4", "rounds=0"])
    assert load_config(write_config(tmp_path), [ADAPTER[0], WARM, "rounds=0"]).model.lora is not None


@pytest.mark.parametrize("overrides", [FULL, ADAPTER], ids=["full", "adapter"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_at_every_third_commit_it_ends_in_the_same_numbers(overrides, when, tmp_path, monkeypatch):
    uninterrupted = finished(tmp_path / "whole", *overrides)
    kill_at_commits(monkeypatch, when)
    run, kills = coevolve_through_kills(started(tmp_path / "killed", *overrides))
    run.close()
    assert kills >= 4
    assert results(run.folder) == results(uninterrupted.folder)
    assert curve(run.folder) == curve(uninterrupted.folder)
    for agent in ("target", "failure"):
        same(stored(run, agent).params, stored(uninterrupted, agent).params)
        same(stored(run, agent).frozen, stored(uninterrupted, agent).frozen)


def test_a_full_warm_start_is_the_base_and_an_adapters_base_is_the_initial_model(whole, tmp_path):
    plain = finished(tmp_path / "plain", WARM, "rounds=0")
    same(stored(whole, "target").frozen, stored(plain, "target").params)
    adapted = finished(tmp_path / "adapter", ADAPTER[0], WARM, "rounds=0", "recipe=eto")
    agent, model = (
        stored(adapted, "target"),
        Transformer(plain.config.model, learner_of(plain).model.vocab_size),
    )
    same(agent.frozen, fresh_params(model))
    assert all(np.abs(factors["b"]).max() > 0 for factors in agent.params["layers"].values())


@pytest.mark.parametrize("option", ["reference=warm_start", "reference_every=2", "keep_optimizer=true"])
def test_references_and_moments_of_adapters_follow_their_options(option, tmp_path):
    """A pair's loss is ln 2 where the agent is its own reference: at a round's start, or at a refresh."""
    run = finished(tmp_path, *FULL, f"agents.target.{option}", "rounds=2", "agents.target.beta=[0.5]")
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    pair_loss = {
        round: [
            line["values"]["target/loss/pair"]
            for line in lines
            if line["phase"] == f"round-{round:02d}/learn_target" and "target/loss/pair" in line["values"]
        ]
        for round in (1, 2)
    }
    assert pair_loss[1][0] == pytest.approx(np.log(2), abs=1e-3)
    moved_on = abs(pair_loss[2][0] - np.log(2)) > 1e-3
    assert moved_on == (option == "reference=warm_start")
    if option == "reference_every=2":
        assert pair_loss[1][2] == pytest.approx(np.log(2), abs=1e-3)


PEFT = ("peft==0.21.2", "accelerate==1.15.0")


def our_logits(config: ModelConfig, params, vocab_size: int, tokens: np.ndarray) -> np.ndarray:
    model = Transformer(config.model_copy(update={"lora": None}), vocab_size)
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
    until = jnp.full_like(tokens, tokens.shape[1])
    return np.asarray(output_logits(params, model.apply({"params": params}, tokens, positions, until)))


def test_pytorch_computes_the_same_logits_from_every_export(whole, tmp_path_factory, tmp_path):
    """Merged, adapter, and all parameters trained, there with grouped heads and an untied head."""
    changes = "{num_heads: 4, num_kv_heads: 2, head_dim: 16, tie_embeddings: false, rope_theta: 5000.0}"
    other = finished(tmp_path / "other", WARM, f"model={changes}", "rounds=0")
    cases = {"merged": (whole, "merged"), "adapter": (whole, "adapter"), "full": (other, "merged")}
    expected, folders = {}, []
    tokens = np.random.default_rng(0).integers(0, 270, (2, 40)).astype(np.int32)
    np.save(tmp_path / "tokens.npy", tokens)
    for name, (run, form) in cases.items():
        out = export_agent(run.folder, tmp_path / name, agent="target", form=form)
        folders.append(f"{name}={out}")
        agent = stored(run, "target")
        params = whole_params(agent.params, agent.frozen, run.config.model)
        expected[name] = our_logits(run.config.model, params, learner_of(run).model.vocab_size, tokens)
        found = load_file(out / ("base" if form == "adapter" else ".") / "model.safetensors")
        wanted = entries(run.config.model, learner_of(run).model.vocab_size)
        assert set(found) == {name for entry in wanted for _, name in entry.tensors()}
    script = Path(__file__).parent / "launch" / "torch_logits.py"
    command = [sys.executable, script, tmp_path / "logits.npz", tmp_path / "tokens.npy", *folders]
    environment = os.environ | peers_path(tmp_path_factory, *PEFT)
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    found = np.load(tmp_path / "logits.npz")
    for name, logits in expected.items():
        np.testing.assert_allclose(found[name], logits, atol=1e-4)
    assert np.abs(expected["merged"] - expected["full"]).max() > 0.1
