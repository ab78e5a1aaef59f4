import json
import shutil

import pytest
import transformers
from hypothesis import given
from hypothesis import strategies as st

from coevo_jax.config.strict import ConfigError
from coevo_jax.data.chat.format import chat_format
from coevo_jax.data.chat.template import default_template
from coevo_jax.data.chat.tokenizer import load_tokenizer, save_tokenizer, tokenizer_files, train_tokenizer
from tests.data.chat.families import make_tokenizer

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
    loaded = transformers.AutoTokenizer.from_pretrained(folder)
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


def test_a_missing_folder_and_a_missing_template_are_named(tmp_path, tokenizer):
    with pytest.raises(ConfigError, match="nowhere: no such folder"):
        load_tokenizer(tmp_path / "nowhere")
    save_tokenizer(tokenizer, tmp_path / "bare")
    (tmp_path / "bare" / "chat_template.jinja").unlink()
    with pytest.raises(ConfigError, match=r"bare: the tokenizer has no chat template: found neither .*jinja"):
        load_tokenizer(tmp_path / "bare")


@pytest.mark.parametrize("model_type", [None, "llama", "mistral", "qwen3", "gemma2"])
def test_a_model_folder_without_tokenizer_is_named(tmp_path, model_type):
    """transformers itself makes an empty tokenizer of a folder with Qwen's or Gemma's config.json."""
    if model_type is not None:
        (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
        (tmp_path / "tokenizer_config.json").write_text("{}")
    with pytest.raises(
        ConfigError, match=r"holds no tokenizer: found no tokenizer\.json; .*copy them"
    ) as caught:
        load_tokenizer(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}: ")


def test_a_folder_with_a_tokenizer_of_another_format_says_how_to_convert_it(tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(b"sentencepiece")
    with pytest.raises(
        ConfigError, match=r"no tokenizer\.json; tokenizer\.model is another format: convert it"
    ):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("keep", [0, 1000, -1])
def test_a_cut_or_foreign_tokenizer_file_is_one_error(tmp_path, folder, keep):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    text = (tmp_path / "tokenizer.json").read_text()
    (tmp_path / "tokenizer.json").write_text(text[:keep] if keep >= 0 else text.replace('"BPE"', '"New"'))
    with pytest.raises(ConfigError, match="cannot be loaded as a Hugging Face tokenizer: "):
        load_tokenizer(tmp_path)


def test_a_template_inside_the_tokenizers_config_is_found(tmp_path, folder, tokenizer):
    """Where transformers 4 puts it, and most model folders have it."""
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    config["chat_template"] = (tmp_path / "chat_template.jinja").read_text()
    (tmp_path / "chat_template.jinja").unlink()
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    assert load_tokenizer(tmp_path).chat_template == tokenizer.chat_template


SPECIAL = ("<unk>", "<s>", "</s>", "[INST]", "[/INST]")


def test_a_saved_folder_says_nothing_that_transformers_4_cannot_read(tmp_path):
    """Its `extra_special_tokens` is a mapping, and what 5 notes of a loading would become the tokenizer's."""
    tokenizer = make_tokenizer("mistral3", extra_special_tokens=["[INST]", "[/INST]"])
    tokenizer.save_pretrained(tmp_path / "theirs")
    theirs = load_tokenizer(tmp_path / "theirs")
    assert theirs.extra_special_tokens == ["[INST]", "[/INST]"]
    save_tokenizer(theirs, tmp_path / "ours")
    described = json.loads((tmp_path / "ours" / "tokenizer_config.json").read_text())
    assert described["additional_special_tokens"] == ["[INST]", "[/INST]"]
    assert not {"extra_special_tokens", "is_local", "local_files_only", "backend"} & described.keys()
    assert described["tokenizer_class"] == "PreTrainedTokenizerFast"
    again = load_tokenizer(tmp_path / "ours")
    assert again.extra_special_tokens == theirs.extra_special_tokens
    assert set(again.all_special_tokens) == set(SPECIAL)
    assert again("<s>[INST] a")["input_ids"] == theirs("<s>[INST] a")["input_ids"]


def several_templates(folder, form):
    """A folder with a default template and one for tools, in one of the forms that releases have had."""
    make_tokenizer("qwen25").save_pretrained(folder)
    default, tools = (folder / "chat_template.jinja").read_text(), "{{ messages[0].content }}"
    templates = [{"name": "default", "template": default}, {"name": "tool_use", "template": tools}]
    if form == "folder":
        (folder / "additional_chat_templates").mkdir()
        (folder / "additional_chat_templates" / "tool_use.jinja").write_text(tools)
        return default
    (folder / "chat_template.jinja").unlink()
    described = folder / "tokenizer_config.json"
    if form == "list":
        described.write_text(json.dumps(json.loads(described.read_text()) | {"chat_template": templates}))
    else:
        found = templates if form == "processor's list" else default
        (folder / "chat_template.json").write_text(json.dumps({"chat_template": found}))
    return default


@pytest.mark.parametrize("form", ["folder", "list", "processor's", "processor's list"])
def test_the_default_of_several_templates_is_taken_and_all_are_kept(tmp_path, form):
    default = several_templates(tmp_path / "theirs", form)
    loaded = load_tokenizer(tmp_path / "theirs")
    plain = chat_format(make_tokenizer("qwen25"))
    assert chat_format(loaded).prompt_ids("a", "b") == plain.prompt_ids("a", "b")
    for _ in range(2):  # a kill before the commit leaves the files, and they are written again
        save_tokenizer(loaded, tmp_path / "ours")
        again = load_tokenizer(tmp_path / "ours")
        assert default_template(again) == default
        assert again.chat_template == loaded.chat_template
    expected = {"chat_template.jinja", "tokenizer.json", "tokenizer_config.json"}
    expected |= set() if form == "processor's" else {"additional_chat_templates/tool_use.jinja"}
    found = {str(file.relative_to(tmp_path / "ours")) for file in tokenizer_files(tmp_path / "ours")}
    assert found == expected


def test_templates_that_cannot_be_told_apart_or_read_are_named(tmp_path, tokenizer):
    save_tokenizer(tokenizer, tmp_path)
    (tmp_path / "chat_template.jinja").unlink()
    processors = tmp_path / "chat_template.json"
    for content, words in (
        ("[1]", r"chat_template\.json: expected a JSON mapping with chat_template: "),
        ('{"template": "x"}', "chat_template: no key 'chat_template'"),
        ('{"chat_template": 3}', "'default' is no name of a template, or names no text"),
        ('{"chat_template": [{"name": "../a", "template": "x"}]}', "'../a' is no name of a template"),
        (
            '{"chat_template": [{"name": "rag", "template": "x"}]}',
            "templates rag, none of them called def",
        ),
    ):
        processors.write_text(content)
        with pytest.raises(ConfigError, match=words):
            load_tokenizer(tmp_path)


def test_a_pointer_of_git_lfs_is_called_one(tmp_path):
    (tmp_path / "tokenizer.json").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    )
    with pytest.raises(ConfigError, match=r"tokenizer\.json: is a pointer of git-lfs"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("legacy", [None, False, True])
@pytest.mark.parametrize(
    ("name", "tokenizer_class", "model_type"),
    [
        ("llama2", "LlamaTokenizer", "llama"),
        ("llama31", "PreTrainedTokenizerFast", "llama"),
        ("qwen3", "Qwen2Tokenizer", "qwen3"),
        ("mistral3", "LlamaTokenizerFast", "mistral"),
        ("gemma3", "GemmaTokenizerFast", "gemma3_text"),
    ],
)
def test_a_models_tokenizer_is_its_tokenizer_json_here_in_the_run_and_in_the_export(
    tmp_path, name, tokenizer_class, model_type, legacy
):
    """The class a folder names would rebuild Llama's by other rules, and by others again once saved."""
    original, text = make_tokenizer(name), "<s>[INST] Be brief.</s> <|im_end|>\nCount."
    original.save_pretrained(tmp_path / "model")
    described = tmp_path / "model" / "tokenizer_config.json"
    config = json.loads(described.read_text()) | {"tokenizer_class": tokenizer_class}
    described.write_text(json.dumps(config | ({} if legacy is None else {"legacy": legacy})))
    (tmp_path / "model" / "config.json").write_text(json.dumps({"model_type": model_type}))
    loaded = load_tokenizer(tmp_path / "model")
    save_tokenizer(loaded, tmp_path / "run")
    in_run = load_tokenizer(tmp_path / "run")
    (tmp_path / "run" / "config.json").write_text(json.dumps({"model_type": model_type}))
    exported = transformers.AutoTokenizer.from_pretrained(tmp_path / "run")
    expected = original(text, add_special_tokens=False)["input_ids"]
    for tokenizer in (loaded, in_run, exported):
        assert tokenizer(text, add_special_tokens=False)["input_ids"] == expected
        assert tokenizer.chat_template == original.chat_template
        assert tokenizer.special_tokens_map == original.special_tokens_map
