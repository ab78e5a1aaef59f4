import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from coevo_jax.config import ConfigError
from coevo_jax.data.tokenizer import load_tokenizer, train_tokenizer

TEXTS = [
    "How many singers from France are older than 30?",
    "Thought: I count.\nAction: execute[SELECT count(*) FROM singer WHERE age > 30 AND country = 'France']",
    "[('singer',), ('concert',), ('singer_in_concert',)]",
    "Action: execute[DESCRIBE singer]",
    "[('singer_id', 'int'), ('name', 'varchar'), ('age', 'int'), ('country', 'varchar')]",
    "Action: submit",
] * 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(TEXTS, 500, path)
    return path


@pytest.fixture(scope="module")
def tokenizer(folder):
    return load_tokenizer(folder)


def pieces(tokenizer, text):
    return tokenizer.convert_ids_to_tokens(tokenizer(text)["input_ids"])


def test_a_word_is_the_same_token_after_a_space_a_bracket_and_a_quote(tokenizer):
    for text in ["FROM singer", "execute[singer]", "('singer',)", "t.singer", "a\nsinger"]:
        assert [piece for piece in pieces(tokenizer, text) if "singer" in piece] == ["Ġsinger"]


def test_numbers_are_digits_wherever_they_stand(tokenizer):
    after_space = [piece for piece in pieces(tokenizer, "> 305") if piece.strip("Ġ").isdigit()]
    in_bracket = [piece for piece in pieces(tokenizer, "('a', (305,") if piece.strip("Ġ").isdigit()]
    assert after_space == in_bracket == ["Ġ3", "0", "5"]


@given(st.text() | st.text(alphabet="aZ9_ \n\x1a\x1b['é́日<|end>"))
def test_decoding_gives_back_any_text(tokenizer, text):
    ids = tokenizer(text, split_special_tokens=True)["input_ids"]
    assert tokenizer.decode(ids) == text


def test_a_folder_loads_with_the_same_ids_template_pad_and_end(folder, tokenizer):
    loaded = AutoTokenizer.from_pretrained(folder)
    for text in [*TEXTS, "<|user|>singer<|end|>"]:
        assert loaded(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert loaded.chat_template == tokenizer.chat_template
    assert (loaded.pad_token, loaded.pad_token_id, loaded.eos_token) == ("<|pad|>", 0, "<|end|>")
    assert len(loaded) <= 500


def test_training_twice_gives_the_same_tokenizer(folder, tmp_path):
    train_tokenizer(TEXTS, 500, tmp_path)
    assert (tmp_path / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()


def test_the_template_spends_two_tokens_a_message_and_leaves_out_an_empty_system_prompt(tokenizer):
    messages = [{"role": "system", "content": ""}, {"role": "user", "content": "name"}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == "<|user|>name<|end|><|assistant|>"


def test_a_missing_folder_an_empty_one_and_a_missing_template_are_named(tmp_path, tokenizer):
    with pytest.raises(ConfigError, match="nowhere: no such folder"):
        load_tokenizer(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="empty: cannot be loaded"):
        load_tokenizer(tmp_path / "empty")
    tokenizer.save_pretrained(tmp_path / "bare")
    (tmp_path / "bare" / "chat_template.jinja").unlink()
    with pytest.raises(ConfigError, match="bare: the tokenizer has no chat template"):
        load_tokenizer(tmp_path / "bare")
