"""coevo_jax as a contender of `benchmarks.learning`: the train step of `launch.train`, one step at a time."""

import os
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.peers.pipe import Pipe
from coevo_jax.batch import PreferenceBatch
from coevo_jax.config.options import (
    BatchConfig,
    MeshConfig,
    ModelConfig,
    OptimizerConfig,
)
from coevo_jax.config.recipe import KindWeights
from coevo_jax.data.packing.plan import BatchPlan, pack, with_reference
from coevo_jax.data.pairing import PairSet
from coevo_jax.hosts import allocator
from coevo_jax.learning.objective import one_loss
from coevo_jax.learning.optimizer import make_optimizer
from coevo_jax.learning.preference_losses import PREFERENCE_LOSSES
from coevo_jax.learning.train_state import init_state, state_shardings
from coevo_jax.learning.train_step import jit_score, jit_step, take_step
from coevo_jax.models.attention_kinds import choose_attention
from coevo_jax.models.transformer import Transformer
from coevo_jax.sharding import make_mesh
from coevo_jax.trajectory import Ending, PreferencePair, Trajectory

TILE = 128  # row lengths are multiples of it
PEAK_SIZE = {"cpu": 2048, "gpu": 8192, "tpu": 8192}
PLAIN_DPO = KindWeights(dpo=1.0, sft=0.0)
KIND = "expert_over"  # of every pair


def pair_sets(job: dict[str, Any]) -> list[PairSet]:
    """Every step's pairs and the trajectories they name."""
    sets = []
    for step in job["steps"]:
        places = {index: n for n, index in enumerate(dict.fromkeys(i for pair in step for i in pair))}
        trajectories = tuple(_trajectory(job["trajectories"][index], n) for index, n in places.items())
        pairs = tuple(
            PreferencePair(
                task_id=trajectories[places[chosen]].task_id,
                kind=KIND,
                chosen=places[chosen],
                rejected=places[rejected],
            )
            for chosen, rejected in step
        )
        sets.append(PairSet(trajectories=trajectories, pairs=pairs))
    return sets


def _trajectory(record: dict[str, Any], sample: int) -> Trajectory:
    tokens = np.asarray(record["tokens"], np.int32)
    return Trajectory(
        task_id=record["task"],
        agent="target",
        sample=sample,
        prompt="",
        turns=(),
        reward=0.0,
        ending=Ending.FAILED,
        tokens=tokens,
        agent_mask=np.asarray(record["mask"], bool),
        logps=np.zeros(len(tokens), np.float32),
    )


def batches_of(job: dict[str, Any]) -> list[PreferenceBatch]:
    """One microbatch of one row for every step, all of the smallest shape that holds them."""
    sets = pair_sets(job)
    roomy = max(sum(len(one.tokens) for one in pairs.trajectories) for pairs in sets)
    used = [round((1 - _pack(job, pairs, roomy).padding) * roomy) for pairs in sets]
    length = -(-max(used) // TILE) * TILE
    plans = [_pack(job, pairs, length) for pairs in sets]
    assert all(len(plan.batches) == 1 and not plan.dropped_pairs for plan in plans)
    return [plan.batches[0] for plan in plans]


def _pack(job: dict[str, Any], pairs: PairSet, row_length: int) -> BatchPlan:
    views = max(len({index for pair in step for index in pair}) for step in job["steps"])
    shape = BatchConfig(
        rows=1,
        row_length=row_length,
        views_per_row=views,
        pairs=max(len(step) for step in job["steps"]),
        share_prefixes=job["share_prefixes"],
    )
    return pack(
        pairs,
        batch=shape,
        kinds={KIND: PLAIN_DPO},
        order=(KIND,),
        sft_extra={},
        sft_reduction="mean",
        pad_id=0,
        seed=0,
    )


def model_config(job: dict[str, Any]) -> ModelConfig:
    shape = job["model"]
    return ModelConfig(
        hidden_size=shape["hidden_size"],
        num_layers=shape["num_hidden_layers"],
        num_heads=shape["num_attention_heads"],
        num_kv_heads=shape["num_key_value_heads"],
        head_dim=shape["head_dim"],
        intermediate_size=shape["intermediate_size"],
        rope_theta=shape["rope_theta"],
        rms_norm_eps=shape["rms_norm_eps"],
        tie_embeddings=shape["tie_word_embeddings"],
        dtype=job["dtype"],
        attention=job["attention"],
        remat=job["remat"],
    )


@jax.jit
def _product(x: jax.Array) -> jax.Array:
    return jnp.dot(x, x, preferred_element_type=jnp.float32)


def matmul_peak(dtype: str, times: int = 8) -> float:
    """FLOP/s of a large square product in that type with float32 sums: the best of several."""
    size = PEAK_SIZE.get(jax.default_backend(), 2048)
    x = jnp.ones((size, size), dtype)
    jax.block_until_ready(_product(x))
    best = float("inf")
    for _ in range(times):
        start = time.perf_counter()
        jax.block_until_ready(_product(x))
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def main() -> None:
    pipe = Pipe()
    job = pipe.job()
    mesh = make_mesh(MeshConfig())
    config = model_config(job)
    model = Transformer(config, job["model"]["vocab_size"], choose_attention(config, mesh))
    optimizer = make_optimizer(OptimizerConfig())
    shardings = state_shardings(model, optimizer, mesh)
    state = init_state(model, optimizer, shardings, 0)
    programs = jit_step(
        model, optimizer, one_loss(PREFERENCE_LOSSES["sigmoid"], (KIND,)), mesh, shardings, {}
    )
    score = jit_score(model, mesh, shardings, {})
    batches = batches_of(job)
    jax.block_until_ready(score(state.params, {}, batches[0]))
    seconds, cpu = [], []
    for number, batch in enumerate(batches):
        clock, used = time.perf_counter(), time.process_time()
        batches[number] = with_reference(batch, np.asarray(score(state.params, {}, batch)))
        seconds.append(time.perf_counter() - clock)
        cpu.append(time.process_time() - used)
    length = batches[0].tokens.tokens.shape[1]
    pipe.report(
        {
            "versions": f"coevo_jax, jax {jax.__version__}",
            "settings": f"rows of {length}, attention {config.attention}, remat {config.remat}",
            "reference_seconds": seconds,
            "reference_cpu": cpu,
            "matmul_peak": matmul_peak(job["dtype"]),
            "device": jax.devices()[0].device_kind,
        }
    )
    beta, rate = np.float32(job["beta"]), np.float32(job["learning_rate"])
    for batch in batches:
        pipe.wait()
        peak = matmul_peak(job["dtype"], times=3)  # what the machine gives in this turn
        pipe.restart()
        state, metrics = take_step(programs, state, {}, [batch], beta, rate)
        jax.block_until_ready(state)
        loss, share = metrics["loss"]
        stats = jax.local_devices()[0].memory_stats() or {}
        memory = stats.get("peak_bytes_in_use")
        pipe.report({"loss": float(loss / share), "device_peak": memory, "matmul_peak": peak})


if __name__ == "__main__":
    allocator.begin(os.environ, sys.orig_argv)  # as a command does
    main()
