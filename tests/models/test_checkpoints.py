"""Checkpoint files: read back bit by bit under any mesh, each device its own part, and broken ones named."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from coevo_jax.config.options import LoraConfig, MeshConfig
from coevo_jax.config.strict import ConfigError
from coevo_jax.models.huggingface import host as host_module
from coevo_jax.models.huggingface import load as load_module
from coevo_jax.models.huggingface.load import load_params
from coevo_jax.models.huggingface.save import for_all_releases
from coevo_jax.models.huggingface.shards import INDEX, check_checkpoint, open_file
from tests.models.checkpoints import learner_of, params_of, write_checkpoint
from tests.models.families import VOCAB


def same(found, expected):
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize(
    ("name", "dtype"), [("gemma3", "float32"), ("qwen2", "bfloat16"), ("llama31", "float16")]
)
def test_what_is_written_is_read_bit_by_bit(name, dtype, tmp_path):
    config, params = write_checkpoint(name, tmp_path, dtype=dtype)
    assert len(list(tmp_path.glob("model-*-of-*.safetensors"))) > 1
    found = params_of(tmp_path, config)
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(found))
    same(found, params)


def test_one_file_holds_the_types_asked_for(tmp_path):
    write_checkpoint("qwen3", tmp_path, dtype="bfloat16", shard_bytes=10**9)
    assert [path.name for path in tmp_path.glob("*.safetensors*")] == ["model.safetensors"]
    assert (tmp_path / "model.safetensors").stat().st_mode & 0o444 == 0o444
    assert {tensor.dtype for tensor in load_file(tmp_path / "model.safetensors").values()} == {
        np.dtype(ml_dtypes.bfloat16)
    }


@pytest.mark.parametrize("name", ["gemma3", "qwen2"])
def test_a_base_in_its_own_type_is_put_together_on_the_host(name, tmp_path, monkeypatch):
    """The same numbers as through the device, read a few rows at a time, and no second copy."""
    monkeypatch.setattr(host_module, "ROWS", 7)  # divides no side
    config, params = write_checkpoint(name, tmp_path, dtype="bfloat16")
    lora = LoraConfig(rank=2, warm_start="adapter", base_dtype="bfloat16")
    abstract = learner_of(config.model_copy(update={"lora": lora})).abstract_frozen()
    through = load_params(tmp_path, config, abstract)
    made = []
    assemble = load_module.assemble
    monkeypatch.setattr(load_module, "assemble", lambda *args: made.append(assemble(*args)) or made[-1])
    found = load_params(tmp_path, config, abstract, kept=True)
    assert len(made) == len(jax.tree.leaves(params))
    same(found, through)
    same(found, jax.tree.map(lambda leaf: leaf.astype(ml_dtypes.bfloat16), params))
    for leaf, like in zip(jax.tree.leaves(found), jax.tree.leaves(abstract), strict=True):
        assert leaf.dtype == like.dtype and leaf.sharding.is_equivalent_to(like.sharding, leaf.ndim)


class Watched:
    """A checkpoint file that notes how much of each tensor is read at a time."""

    def __init__(self, path, reads):
        self._file, self._reads = open_file(path), reads

    def get_slice(self, name):
        tensor, reads = self._file.get_slice(name), self._reads.setdefault(name, [])

        class Part:
            def __getitem__(self, index):
                reads.append(tensor[index].size)
                return tensor[index]

        return Part()


@pytest.mark.parametrize(("data", "fsdp", "tensor"), [(1, 2, 2), (1, 3, 1), (2, 1, 2)])
def test_each_device_reads_the_part_it_keeps(data, fsdp, tensor, tmp_path, monkeypatch):
    config, expected = write_checkpoint("qwen3", tmp_path, vocab_size=132, intermediate_size=76)
    reads = {}
    monkeypatch.setattr(load_module, "open_file", lambda path: Watched(path, reads))
    mesh = MeshConfig(data=data, fsdp=fsdp, tensor=tensor)
    found, wanted = params_of(tmp_path, config, mesh), learner_of(config, mesh).abstract().params
    same(found, expected)
    for leaf, like in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        assert leaf.sharding.is_equivalent_to(like.sharding, leaf.ndim)
    for name, stored in check_checkpoint(tmp_path, config, 132).items():
        if len(stored.shape) == 2:  # norms are on every device
            assert set(reads[name]) == {np.prod(stored.shape) // (fsdp * tensor)}, name
        assert len(reads[name]) <= data * fsdp * tensor


def broken(tmp_path, change):
    """A checkpoint in one file with its tensors changed."""
    config, _ = write_checkpoint("qwen3", tmp_path, shard_bytes=10**9)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    return config


def rename(tensors):
    tensors["model.layers.1.self_attn.query.weight"] = tensors.pop("model.layers.1.self_attn.q_proj.weight")


def reshape(tensors):
    tensors["model.layers.2.mlp.up_proj.weight"] = np.zeros((3, 4), np.float32)


def quantise(tensors):
    tensors["model.norm.weight"] = tensors["model.norm.weight"].astype(np.int8)


BROKEN = {
    "missing": (
        lambda tensors: tensors.pop("lm_head.weight"),
        [r"the tensor lm_head\.weight is missing"],
    ),
    "renamed": (
        rename,
        [
            r"layers\.1\.self_attn\.q_proj\.weight is missing \(found model\.layers\.1\.self_attn\.query",
            r"unexpected tensor model\.layers\.1\.self_attn\.query\.weight",
        ],
    ),
    "misshapen": (reshape, [r"up_proj\.weight: found shape \[3, 4\], expected \[75, 54\]"]),
    "quantised": (quantise, [r"model\.norm\.weight: found type I8, expected one of F32, BF16, F16"]),
}


@pytest.mark.parametrize("case", BROKEN)
def test_tensors_that_do_not_fit_are_named(case, tmp_path):
    change, messages = BROKEN[case]
    config = broken(tmp_path, change)
    for message in messages:
        with pytest.raises(ConfigError, match=message):
            check_checkpoint(tmp_path, config, VOCAB)


def test_a_tied_head_stored_twice_is_no_error(tmp_path):
    config, params = write_checkpoint("llama32", tmp_path, shard_bytes=10**9)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    save_file(tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"].copy()}, path)
    same(params_of(tmp_path, config), params)


def test_a_tied_head_that_differs_is_refused(tmp_path):
    """transformers would keep both, and so compute something else than a tied model."""
    config, _ = write_checkpoint("llama32", tmp_path, shard_bytes=10**9)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    head = tensors["model.embed_tokens.weight"].copy()
    head[130, 5] += 0.5
    save_file(tensors | {"lm_head.weight": head}, path)
    words = r"lm_head\.weight: found \S+ in row 130, expected \S+ as model\.embed_tokens\.weight of model"
    with pytest.raises(ConfigError, match=words):
        check_checkpoint(tmp_path, config, VOCAB)
    save_file(tensors | {"lm_head.weight": head[:-1]}, path)
    with pytest.raises(ConfigError, match=r"lm_head\.weight: found shape \[130, 54\], expected \[131, 54\]"):
        check_checkpoint(tmp_path, config, VOCAB)
    save_file(tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"].astype(np.float16)}, path)
    with pytest.raises(ConfigError, match=words.replace("130", r"\d+")):
        check_checkpoint(tmp_path, config, VOCAB)


def test_an_index_may_list_a_tied_head_that_no_file_holds(tmp_path):
    config, params = write_checkpoint("llama32", tmp_path)
    index = json.loads((tmp_path / INDEX).read_text())
    file = index["weight_map"]["model.embed_tokens.weight"]
    index["weight_map"]["lm_head.weight"] = file
    (tmp_path / INDEX).write_text(json.dumps(index))
    same(params_of(tmp_path, config), params)
    untied = config.model_copy(update={"tie_embeddings": False})
    with pytest.raises(ConfigError, match=r"lm_head\.weight is to stand in .* which does not hold it"):
        check_checkpoint(tmp_path, untied, VOCAB)


def test_a_tensor_with_two_sources_is_refused(tmp_path):
    config, _ = write_checkpoint("qwen3", tmp_path)
    first, *_, last = sorted(tmp_path.glob("model-*.safetensors"))
    whole = last.read_bytes()
    twice = sorted(load_file(first))[0]
    save_file(load_file(last) | {twice: load_file(first)[twice]}, last)
    with pytest.raises(ConfigError, match=rf"tensor {twice} stands both in {first.name} and in {last.name}"):
        check_checkpoint(tmp_path, config, VOCAB)
    last.write_bytes(whole)
    (tmp_path / "model.safetensors").write_bytes(whole)
    with pytest.raises(ConfigError, match=rf"holds both model\.safetensors and {INDEX}"):
        check_checkpoint(tmp_path, config, VOCAB)


def test_a_pointer_of_git_lfs_is_called_one(tmp_path):
    config, _ = write_checkpoint("qwen3", tmp_path)
    last = sorted(tmp_path.glob("*.safetensors"))[-1]
    last.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(ConfigError, match=rf"{last}: is a pointer of git-lfs, not the file itself"):
        check_checkpoint(tmp_path, config, VOCAB)


def test_broken_files_are_named(tmp_path):
    config, _ = write_checkpoint("qwen3", tmp_path)
    last = sorted(tmp_path.glob("*.safetensors"))[-1]
    whole = last.read_bytes()
    for content in (whole[:-7], whole[:5], b""):
        last.write_bytes(content)
        with pytest.raises(
            ConfigError, match=rf"{last}: cannot be read as a safetensors file; it may be trunc"
        ):
            check_checkpoint(tmp_path, config, VOCAB)
    last.unlink()
    with pytest.raises(ConfigError, match=rf"{last}: no such file, though {INDEX} names it"):
        check_checkpoint(tmp_path, config, VOCAB)
    last.write_bytes(whole)
    index = json.loads((tmp_path / INDEX).read_text())
    index["weight_map"]["model.norm.extra"] = last.name
    (tmp_path / INDEX).write_text(json.dumps(index))
    with pytest.raises(ConfigError, match=r"model\.norm\.extra is to stand in .* which does not hold it"):
        check_checkpoint(tmp_path, config, VOCAB)
    (tmp_path / INDEX).write_text("[1]")
    with pytest.raises(ConfigError, match="expected a mapping weight_map"):
        check_checkpoint(tmp_path, config, VOCAB)


def test_a_folder_without_safetensors_says_what_it_found(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    config, _ = write_checkpoint("qwen3", tmp_path / "other")
    with pytest.raises(ConfigError, match=r"holds neither .* \(found pytorch_model\.bin\)"):
        check_checkpoint(tmp_path, config, VOCAB)


@pytest.mark.slow
@pytest.mark.parametrize("mesh", ["1 1 1", "1 2 2"])
def test_the_host_holds_little_beside_what_the_devices_keep(mesh, tmp_path):
    """Llama-2-7B's width, 4 layers: 2.1 GB in bfloat16 over several files; `pytest -s` prints the figures."""
    command = [sys.executable, "-m", "tests.models.load_peak", tmp_path, *mesh.split()]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=root)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    print(mesh, figures)
    assert figures["files"] == 3
    assert figures["host_peak_bytes"] < 1.3 * figures["largest_file_bytes"] + figures["device_bytes"]


def test_a_description_is_read_alike_by_other_releases():
    """transformers 4 knows no `rope_parameters`: without the older keys it computes with other positions."""
    rope = {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0}
    found = for_all_releases({"model_type": "llama", "rope_parameters": rope})
    assert found["architectures"] == ["LlamaForCausalLM"] and found["rope_theta"] == 5e5
    assert found["rope_scaling"] == {"rope_type": "llama3", "factor": 8.0}
    plain = {"rope_type": "default", "rope_theta": 1e4}
    gemma = {"full_attention": plain | {"rope_theta": 1e6}, "sliding_attention": plain}
    found = for_all_releases({"model_type": "gemma3_text", "rope_parameters": gemma})
    assert (found["rope_theta"], found["rope_local_base_freq"]) == (1e6, 1e4) and "rope_scaling" not in found
    old = {"model_type": "qwen3", "architectures": ["Mine"], "rope_theta": 3.0, "rope_scaling": None}
    assert for_all_releases(old) == old
