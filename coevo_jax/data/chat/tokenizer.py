"""A small byte-level BPE tokenizer trained on a run's own text, in Hugging Face format.

A word has one token wherever it stands: after a space (`FROM singer`), a bracket (`execute[singer`) or a
quote (`('singer',)`). A tiny model that copies a name from an observation into a query then copies tokens.
To get there every word start carries its space: where the text has none, the normalizer inserts `GLUE` and a
space, and `GLUE` merges with the punctuation before it. The decoder deletes both again, so that
decode(encode(x)) == x for any text. Dialogues about SQL also get 14 % shorter than with GPT-2's scheme.
"""

import json
import shutil
import string
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from coevo_jax.config.strict import ConfigError
from coevo_jax.files import LFS_WORDS, is_lfs_pointer, temporary_of

PAD, END = "<|pad|>", "<|end|>"
SPECIAL_TOKENS = (PAD, "<|system|>", "<|user|>", "<|assistant|>", END)
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] != 'system' or message['content'] %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)

TOKENIZER_FILE, DESCRIBED = "tokenizer.json", "tokenizer_config.json"
OLD_TEMPLATE = "chat_template.json"  # a processor's, which transformers' tokenizers do not read
DEFAULT_TEMPLATE = "default"
_OF_LOADING = ("is_local", "local_files_only", "backend")  # how it was loaded here, which no file should say
OTHER_VOCABULARIES = ("tokenizer.model", "tekken.json", "vocab.json", "vocab.txt")

GLUE = "\x1a"  # stands before an inserted space; the text's own GLUE is escaped
ESCAPE = "\x1b"
WORD = r"\p{L}\p{N}"


def train_tokenizer(texts: Iterable[str], vocab_size: int, path: Path) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer, save it to the folder `path` and return it as loaded from there.

    The same texts in the same order give the same tokenizer. `vocab_size` counts the special tokens and the
    256 bytes; few texts may give fewer tokens. Numbers are split into digits. `AutoTokenizer` loads it.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = _mark_word_starts()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(_pieces(), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.ByteLevel(),
            decoders.Replace(GLUE + " ", ""),
            decoders.Replace(GLUE + ESCAPE, GLUE),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    trained = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )
    save_tokenizer(trained, path)
    return load_tokenizer(path)


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, path: Path) -> None:
    """Save a tokenizer so that every release of transformers loads it as its tokenizer.json says.

    Each file is put in its place whole: one that is there may be another run's, too (a fork's hard link). So
    a folder that a kill left half written is written again.
    """
    path.mkdir(parents=True, exist_ok=True)
    place = temporary_of(path, unique=True)
    try:
        tokenizer.save_pretrained(place)
        described = place / DESCRIBED
        config = _for_all_releases(json.loads(described.read_text(encoding="utf-8")))
        described.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        for file in tokenizer_files(place):
            target = path / file.relative_to(place)
            target.parent.mkdir(exist_ok=True)  # of further chat templates
            file.replace(target)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def tokenizer_files(path: Path) -> list[Path]:
    """The files of a saved tokenizer, those in folders of its folder too."""
    return sorted(file for file in path.rglob("*") if file.is_file())


def _for_all_releases(config: dict[str, Any]) -> dict[str, Any]:
    """What transformers 5 writes into tokenizer_config.json, as transformers 4 reads it, too.

    Its list `extra_special_tokens` was called `additional_special_tokens`, which both know; the old key takes
    no list. The class that takes tokenizer.json as it is has a newer name that is unknown before 5.
    """
    config = {key: value for key, value in config.items() if key not in _OF_LOADING}
    if isinstance(config.get("extra_special_tokens"), list):
        config["additional_special_tokens"] = config.pop("extra_special_tokens")
    return config | {"tokenizer_class": "PreTrainedTokenizerFast"}


def load_tokenizer(path: Path) -> PreTrainedTokenizerFast:
    """Load a Hugging Face tokenizer with a chat template from a folder, a model's or its own; disk only.

    tokenizer.json is taken as it is: the classes of transformers 5 would rebuild Llama's and Mistral's from
    its vocabulary alone, in ways that depend on the other files of the folder.

    Of several chat templates the one called default is taken.

    Raises:
      ConfigError: the folder is missing, holds no fast tokenizer or has no chat template.
    """
    path = Path(path)
    if not path.is_dir():
        raise ConfigError(f"{path}: no such folder; expected a saved Hugging Face tokenizer")
    if not (path / TOKENIZER_FILE).is_file():
        raise ConfigError(f"{path}: holds no tokenizer: found no {TOKENIZER_FILE}; {_how_to_get(path)}")
    if is_lfs_pointer(path / TOKENIZER_FILE):
        raise ConfigError(f"{path / TOKENIZER_FILE}: {LFS_WORDS}")
    try:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(path, local_files_only=True)
    except Exception as error:  # tokenizers raises nothing narrower for a file that it cannot read
        raise ConfigError(f"{path}: cannot be loaded as a Hugging Face tokenizer: {error}") from None
    if not tokenizer.chat_template:
        tokenizer.chat_template = _template_of_a_processor(path)
    if not tokenizer.chat_template:
        raise ConfigError(
            f"{path}: the tokenizer has no chat template: found neither chat_template.jinja nor a "
            f"chat_template in {DESCRIBED} or {OLD_TEMPLATE}; a base model has none: put its instruct "
            "model's there"
        )
    _check_templates(path, tokenizer.chat_template)
    return tokenizer


def _template_of_a_processor(path: Path) -> Any:
    """What chat_template.json says, where models that also see images used to have their template."""
    file = path / OLD_TEMPLATE
    if not file.is_file():
        return None
    try:
        found = json.loads(file.read_text(encoding="utf-8"))["chat_template"]
        return {one["name"]: one["template"] for one in found} if isinstance(found, list) else found
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{file}: expected a JSON mapping with chat_template: {_in_words(error)}") from None


def _check_templates(path: Path, found: Any) -> None:
    """Refuse templates that are no text, or several of which none is called default."""
    templates = found if isinstance(found, dict) else {DEFAULT_TEMPLATE: found}
    wrong = [name for name, text in templates.items() if not isinstance(text, str) or Path(name).name != name]
    if wrong:
        raise ConfigError(f"{path}: chat_template: {wrong[0]!r} is no name of a template, or names no text")
    if DEFAULT_TEMPLATE not in templates:
        raise ConfigError(
            f"{path}: found the chat templates {', '.join(sorted(templates))}, none of them called "
            f"{DEFAULT_TEMPLATE}: put the one that is meant into chat_template.jinja"
        )


def _in_words(error: Exception) -> str:
    return f"no key {error}" if isinstance(error, KeyError) else str(error)


def _how_to_get(path: Path) -> str:
    others = [name for name in OTHER_VOCABULARIES if (path / name).is_file()]
    if others:
        return (
            f"{others[0]} is another format: convert it once by AutoTokenizer.from_pretrained(FOLDER)"
            ".save_pretrained(FOLDER) of transformers, with sentencepiece or tiktoken installed"
        )
    return (
        "expected tokenizer.json, tokenizer_config.json and, with newer models, chat_template.jinja: "
        "copy them from where the model came from"
    )


def _mark_word_starts() -> normalizers.Normalizer:
    """Give every ASCII word start a space: `[name` becomes `[`, GLUE, ` name`.

    One rule per first letter, since a replacement can neither be zero-width nor repeat what it matched.
    """
    return normalizers.Sequence(
        [
            normalizers.Replace(GLUE, GLUE + ESCAPE),
            *(
                normalizers.Replace(Regex(rf"(?<![{WORD} ]){first}"), f"{GLUE} {first}")
                for first in string.ascii_letters + string.digits
            ),
        ]
    )


def _pieces() -> Regex:
    """Pieces that no token crosses: a word with its space, one digit, a run of anything else.

    The first word of a text keeps its GLUE, so that frequent openings ("Thought") are one token.
    """
    return Regex(
        rf"\A{GLUE} \p{{L}}+| ?\p{{L}}+| ?\p{{N}}|[^{WORD}]+(?= [{WORD}])|[^{WORD}]+"  # GLUE is not in WORD
    )
