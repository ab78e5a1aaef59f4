"""The slot engine on the host: shapes, compilations and placement."""

from inspect import unwrap

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from coevo_jax.config.options import MeshConfig
from coevo_jax.sampling import shapes
from coevo_jax.sampling.engine import Request, Sampling
from coevo_jax.sampling.engine_programs import jit_engine
from coevo_jax.sampling.shapes import cache_lengths
from coevo_jax.sharding import make_mesh
from tests.scripted_env import VOCAB, make_engine, random_params

SAMPLING = Sampling(root=jax.random.key(0), temperature=1.0, top_p=1.0)


ENGINE = make_engine(max_tokens=200)


def play_some(engine, params, sampling=SAMPLING, lengths=(5, 60, 40)):
    """Three turns of one slot each, with texts of different lengths in between; returns all tokens."""
    engine.reset()
    weights = engine.load(params)
    texts = {slot: np.arange(length) % VOCAB for slot, length in enumerate(lengths)}
    fresh, tokens = frozenset(texts), []
    for turn in range(3):
        engine.prefill(weights, texts, fresh)
        requests = {slot: Request(budget=6, ids=(0, slot, 0, turn)) for slot in texts}
        written = engine.decode(weights, requests, sampling, quota=2 + turn).fetch()
        tokens += [written[slot].tokens for slot in sorted(written)]
        texts, fresh = {slot: np.full(3 + turn, 7) for slot in texts}, frozenset()
    return tokens


def programs_of_its_own(engine, sharding=None):
    """Programs that no other engine has compiled any of."""
    return unwrap(jit_engine)(engine.model, engine.slots, sharding)


def test_one_program_per_shape_serves_both_agents_and_every_sampling():
    engine = make_engine(max_tokens=200, programs=programs_of_its_own(ENGINE))
    first = play_some(engine, random_params(0))
    assert engine.compilations() == 3  # prefill of 32 and of 64 tokens, decode
    second = play_some(engine, random_params(1))
    for temperature, top_p in [(0.0, 1.0), (0.7, 0.9)]:
        play_some(
            engine, random_params(1), Sampling(root=jax.random.key(5), temperature=temperature, top_p=top_p)
        )
    assert engine.compilations() == 3
    assert first != second
    assert play_some(engine, random_params(0)) == first


@pytest.mark.slow
def test_parameters_committed_to_a_mesh_compile_nothing_twice_and_rows_may_be_batched():
    placement = NamedSharding(make_mesh(MeshConfig()), PartitionSpec())
    programs = programs_of_its_own(ENGINE, placement)
    engine = make_engine(max_tokens=200, sharding=placement, prefill_rows=2, programs=programs)
    params = jax.device_put(random_params(0), placement)
    first = play_some(engine, params)
    assert play_some(engine, params) == first == play_some(ENGINE, random_params(0))
    assert engine.compilations() == 3


def test_engines_of_one_model_share_what_they_compile():
    first, second = make_engine(max_tokens=200), make_engine(max_tokens=200)
    tokens = play_some(first, random_params(0))
    compiled = first.compilations()
    assert play_some(second, random_params(0)) == tokens
    assert first.compilations() == second.compilations() == compiled


@pytest.mark.slow
def test_a_growing_cache_changes_nothing(monkeypatch):
    monkeypatch.setattr(shapes, "FIRST_LENGTH", 48)
    growing = make_engine(max_tokens=70)
    tokens = play_some(growing, random_params(0), lengths=(5, 30, 40))
    assert growing.room(2) < 70 - 48
    assert tokens == play_some(ENGINE, random_params(0), lengths=(5, 30, 40))


def test_lengths_of_the_cache():
    assert cache_lengths(64) == (64,)
    assert cache_lengths(256) == (256,)
    assert cache_lengths(384) == (384,)
    assert cache_lengths(512) == (384, 512)
    assert cache_lengths(1100) == (384, 512, 768, 1024, 1100)
