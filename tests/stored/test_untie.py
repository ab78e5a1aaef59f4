"""A checkpoint with tied embeddings, written again with an output head of its own."""

import json
import shutil

import jax
import numpy as np
import pytest

from coevo_jax.config.strict import ConfigError
from coevo_jax.models.huggingface.save import with_head
from coevo_jax.stored.untie import HEAD_FILE, write_untied
from tests.models.checkpoints import config_of, params_of, write_checkpoint


@pytest.mark.parametrize("shards", [60_000, 10**9], ids=["an index", "one file"])
def test_the_copy_has_the_same_numbers_and_its_embedding_as_head(shards, tmp_path):
    source, copy = tmp_path / "tied", tmp_path / "copy"
    write_checkpoint("qwen3", source, shard_bytes=shards, dtype="bfloat16", tie_word_embeddings=True)
    (source / "tokenizer.json").write_text("{}")
    before = {path: path.read_bytes() for path in source.iterdir()}
    assert write_untied(source, copy) == copy
    tied, untied = (params_of(folder, config_of(folder)) for folder in (source, copy))
    assert "head" not in tied and not config_of(copy).tie_embeddings
    jax.tree.map(np.testing.assert_array_equal, dict(with_head(tied)), dict(untied))
    assert (copy / "tokenizer.json").read_text() == "{}" and (copy / HEAD_FILE).is_file()
    assert {path: path.read_bytes() for path in source.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_what_needs_no_copy_or_would_be_overwritten_is_refused(tmp_path):
    write_checkpoint("qwen3", tmp_path / "own", tie_word_embeddings=False)
    with pytest.raises(ConfigError, match="not tied: serve it as it is"):
        write_untied(tmp_path / "own", tmp_path / "copy")
    write_checkpoint("qwen3", tmp_path / "tied", tie_word_embeddings=True)
    (tmp_path / "copy").mkdir()
    with pytest.raises(ConfigError, match=r"--out .*copy: exists already"):
        write_untied(tmp_path / "tied", tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy")
    described = json.loads((tmp_path / "tied" / "config.json").read_text())
    (tmp_path / "tied" / "model.safetensors.index.json").unlink(missing_ok=True)
    assert described["tie_word_embeddings"]
    with pytest.raises(ConfigError, match=r"holds neither model\.safetensors nor"):
        write_untied(tmp_path / "tied", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
