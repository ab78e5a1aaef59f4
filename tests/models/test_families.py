"""Every family against transformers in PyTorch: logits, log-probabilities, gradients, greedy text, files."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from coevo_jax.models.attention import dense_attention
from coevo_jax.models.huggingface.names import entries
from coevo_jax.models.huggingface.save import save_params
from coevo_jax.models.kv_cache import forward_cached, init_cache
from coevo_jax.models.transformer import Transformer, output_logits
from coevo_jax.models.tree_attention import tree_attention
from tests.models.checkpoints import config_of, params_of
from tests.models.families import FAMILIES, VOCAB, random_model

pytestmark = pytest.mark.slow

LENGTH = 90  # longer than every window and than the original context of the stretched positions
NEW = 64


class Pair:
    """One model on both sides."""

    def __init__(self, name, folder):
        self.theirs, self.folder = random_model(name), folder
        self.theirs.save_pretrained(folder, max_shard_size="60KB")
        self.config = config_of(folder)
        self.params = params_of(folder, self.config)


@pytest.fixture(scope="module", params=FAMILIES)
def pair(request, tmp_path_factory):
    pytest.importorskip("torch")
    return Pair(request.param, tmp_path_factory.mktemp(request.param))


def tokens_of(seed, *shape):
    return np.random.default_rng(seed).integers(0, VOCAB, shape).astype(np.int32)


def ids(tokens):
    import torch

    return torch.from_numpy(tokens).long()


def logits(config, params, tokens, attention=tree_attention):
    model = Transformer(config, VOCAB, attention)
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
    visible = jnp.full_like(tokens, tokens.shape[1])
    return output_logits(params, model.apply({"params": params}, tokens, positions, visible))


@pytest.mark.parametrize("attention", [tree_attention, dense_attention])
def test_logits_and_log_probabilities(pair, attention):
    tokens = tokens_of(1, 2, LENGTH)
    expected = pair.theirs(ids(tokens)).logits.detach().numpy()
    found = np.asarray(logits(pair.config, pair.params, tokens, attention))
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(found, expected, atol=1e-4)
    for row in range(2):
        sums = [
            np.asarray(jax.nn.log_softmax(side[row, :-1]))[np.arange(LENGTH - 1), tokens[row, 1:]].sum()
            for side in (found, expected)
        ]
        assert abs(sums[0] - sums[1]) < 1e-3


def test_gradients_of_a_log_probability(pair):
    import torch

    tokens = tokens_of(2, 1, 40)
    theirs = torch.log_softmax(pair.theirs(ids(tokens)).logits[0, :-1], dim=-1)
    pair.theirs.zero_grad()
    theirs[torch.arange(39), ids(tokens)[0, 1:]].sum().backward()
    expected = {name: p.grad.numpy() for name, p in pair.theirs.named_parameters()}

    def total(params):
        logps = jax.nn.log_softmax(logits(pair.config, params, tokens)[0, :-1])
        return logps[jnp.arange(39), tokens[0, 1:]].sum()

    found = by_name(pair.config, jax.jit(jax.grad(total))(pair.params))
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        scale = np.abs(expected[name]).max()
        if name.endswith("k_proj.bias"):  # moves all scores of a query alike: 0 but for the rotation
            assert np.abs(gradient - expected[name]).max() < 1e-3
            continue
        assert scale > 0, name
        np.testing.assert_allclose(gradient, expected[name], atol=1e-3 * scale, err_msg=name)


def by_name(config, params):
    return {
        name: entry.theirs(np.asarray(entry.leaf(params) if layer is None else entry.leaf(params)[layer]))
        for entry in entries(config, VOCAB)
        for layer, name in entry.tensors()
    }


def test_greedy_text_through_the_cache(pair):
    prompt = tokens_of(3, 1, 30)
    generated = pair.theirs.generate(
        ids(prompt),
        attention_mask=ids(np.ones_like(prompt)),
        max_new_tokens=NEW,
        min_new_tokens=NEW,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )[0, 30:]
    model = Transformer(pair.config, VOCAB)

    @jax.jit
    def step(cache, tokens):
        valid = jnp.full((1,), tokens.shape[1], jnp.int32)
        hidden, cache = forward_cached(model, pair.params, cache, tokens, valid)
        return cache, output_logits(pair.params, hidden[:, -1])

    cache, scores = step(init_cache(pair.config, 1, 128), jnp.asarray(prompt))
    found = []
    for _ in range(NEW):
        found.append(int(jnp.argmax(scores[0])))
        cache, scores = step(cache, jnp.asarray([[found[-1]]], jnp.int32))
    assert found == generated.tolist()
    assert len(set(found)) > 3


def test_what_is_written_loads_in_transformers_with_the_same_bits(pair, tmp_path):
    from transformers import AutoModelForCausalLM

    save_params(tmp_path, pair.params, pair.config, dtype="float32", shard_bytes=60_000)
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    (tmp_path / "config.json").write_bytes((pair.folder / "config.json").read_bytes())
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager").eval()
    tokens = ids(tokens_of(4, 2, 50))
    assert (theirs(tokens).logits == pair.theirs(tokens).logits).all()
    assert tensors(tmp_path).keys() == tensors(pair.folder).keys()
    for name, tensor in tensors(pair.folder).items():
        np.testing.assert_array_equal(tensors(tmp_path)[name], tensor, err_msg=name)


def tensors(folder):
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        found |= load_file(path)
    return found
