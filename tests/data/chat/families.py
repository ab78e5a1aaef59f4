"""Small tokenizers and chat templates of the families' kinds, as a user's model folder would hold them.

The templates in `templates/` behave as the families' own do on plain conversations (no tools, no
images). The tokenizers have the families' pipelines and control tokens, with a vocabulary of a few sentences.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from transformers import PreTrainedTokenizerFast

TEMPLATES = Path(__file__).parent / "templates"
TEXTS = [
    "Be brief. Count the singers from France. Thought: I count. Action: submit",
    "system user assistant model You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
    "Cutting Knowledge Date: December 2023 Today Date: 26 Jul 2024",
    "INST INST INST <<SYS>> <</SYS>> [INST] [/INST] [/INST] think think",
    "system\n\nuser\n\nassistant\n\nmodel\n\nBe brief.\nCount.\nAction: submit\nThought: I count.\nToday",
] * 4
LLAMA3_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
QWEN_WORDS = LLAMA3_WORDS.replace(r"\p{N}{1,3}", r"\p{N}")
SENTENCEPIECE_WORDS = r"▁?[\p{L}]+|▁?\p{N}|\n|▁?[^\s\p{L}\p{N}▁]+|▁"  # no piece of two kinds of letters


def byte_level(words: str, control: tuple[str, ...], *, ordinary: tuple[str, ...] = (), nfc: bool = False):
    """GPT-2's bytes, cut into words by a regular expression: Llama 3 and Qwen."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC() if nfc else None  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(words), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=700, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.add_special_tokens(list(control))
    tokenizer.add_tokens([AddedToken(word, normalized=False, special=False) for word in ordinary])
    return tokenizer


def sentencepiece(
    first: tuple[str, ...], *, front: str, control: tuple[str, ...] = (), pieces: tuple[str, ...] = ()
):
    """SentencePiece's BPE with byte fallback: Llama 2, Mistral and Gemma.

    `front` is what puts a space before a text: "prepend" (the normalizer, before every section), "first"
    (Metaspace, before the first one) or "none" (Gemma). `pieces` are merged from their characters.
    """
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(prepend_scheme="always", split=True),
            pre_tokenizers.Split(Regex(SENTENCEPIECE_WORDS), "isolated"),
        ]
    )
    trained.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=500, show_progress=False))
    state = json.loads(trained.to_str())["model"]
    merges = [*map(tuple, state["merges"]), *((piece[:-1], piece[-1]) for piece in pieces)]
    words = [*first, *control, *(f"<0x{byte:02X}>" for byte in range(256)), *state["vocab"], "▁", *pieces]
    vocab = {word: id for id, word in enumerate(dict.fromkeys(words))}
    tokenizer = Tokenizer(
        models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    replace, parts = normalizers.Replace(" ", "▁"), [decoders.Replace("▁", " "), decoders.ByteFallback()]
    parts.append(decoders.Fuse())
    if front == "prepend":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), replace])
    elif front == "first":
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    else:
        tokenizer.normalizer = replace
        tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    if front != "none":
        parts.append(decoders.Strip(" ", 1, 0))
    tokenizer.decoder = decoders.Sequence(parts)
    tokenizer.add_special_tokens([*first, *control])
    return tokenizer


@dataclass(frozen=True, kw_only=True)
class Family:
    template: str
    tokenizer: Tokenizer
    end: str  # the token that ends a turn
    names: dict[str, str] = field(default_factory=dict)  # bos_token, eos_token, pad_token
    system_role: bool = True  # the template takes a system message
    rewrites: bool = False  # it renders the past otherwise than it was when it was played


LLAMA3 = byte_level(
    LLAMA3_WORDS,
    ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
)
LLAMA3_NAMES = {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"}  # the base model's end
CHATML = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
QWEN_NAMES = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
QWEN2 = byte_level(QWEN_WORDS, CHATML, nfc=True)
QWEN3 = byte_level(QWEN_WORDS, CHATML, ordinary=("<think>", "</think>", "<tool_call>"), nfc=True)
R1 = byte_level(
    LLAMA3_WORDS,
    ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"),
    ordinary=("<｜User｜>", "<｜Assistant｜>", "<think>", "</think>"),
)
R1_NAMES = {"bos_token": "<｜begin▁of▁sentence｜>", "eos_token": "<｜end▁of▁sentence｜>"}
TEKKEN = byte_level(LLAMA3_WORDS, ("<unk>", "<s>", "</s>", "[INST]", "[/INST]"))
SPACES = ("▁▁", "▁▁▁")
LLAMA2 = sentencepiece(("<unk>", "<s>", "</s>"), front="prepend", pieces=SPACES)
LLAMA2_FIRST = sentencepiece(("<unk>", "<s>", "</s>"), front="first", pieces=SPACES)
MISTRAL3 = sentencepiece(
    ("<unk>", "<s>", "</s>"), front="prepend", control=("[INST]", "[/INST]"), pieces=SPACES
)
GEMMA = sentencepiece(
    ("<pad>", "<eos>", "<bos>", "<unk>"),
    front="none",
    control=("<start_of_turn>", "<end_of_turn>"),
    pieces=(*SPACES, "\n\n"),
)
S_NAMES = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
GEMMA_NAMES = {"bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>", "pad_token": "<pad>"}

FAMILIES = {
    "llama2": Family(template="llama2", tokenizer=LLAMA2, end="</s>", names=S_NAMES),
    "llama2_first": Family(
        template="llama2", tokenizer=LLAMA2_FIRST, end="</s>", names={**S_NAMES, "pad_token": "</s>"}
    ),
    "llama3": Family(template="llama3", tokenizer=LLAMA3, end="<|eot_id|>", names=LLAMA3_NAMES),
    "llama31": Family(template="llama31", tokenizer=LLAMA3, end="<|eot_id|>", names=LLAMA3_NAMES),
    "llama32": Family(template="llama32", tokenizer=LLAMA3, end="<|eot_id|>", names=LLAMA3_NAMES),
    "qwen25": Family(template="qwen25", tokenizer=QWEN2, end="<|im_end|>", names=QWEN_NAMES),
    "qwen3": Family(template="qwen3", tokenizer=QWEN3, end="<|im_end|>", names=QWEN_NAMES, rewrites=True),
    "qwen3_instruct": Family(template="qwen3_instruct", tokenizer=QWEN3, end="<|im_end|>", names=QWEN_NAMES),
    "qwen3_thinking": Family(
        template="qwen3_thinking", tokenizer=QWEN3, end="<|im_end|>", names=QWEN_NAMES, rewrites=True
    ),
    "qwen35": Family(template="qwen35", tokenizer=QWEN3, end="<|im_end|>", names=QWEN_NAMES, rewrites=True),
    "qwq": Family(template="qwq", tokenizer=QWEN3, end="<|im_end|>", names=QWEN_NAMES, rewrites=True),
    "r1_distill": Family(
        template="r1_distill", tokenizer=R1, end="<｜end▁of▁sentence｜>", names=R1_NAMES, rewrites=True
    ),
    "mistral": Family(
        template="mistral",
        tokenizer=LLAMA2,
        end="</s>",
        names={**S_NAMES, "pad_token": "</s>"},
        system_role=False,
    ),
    "mistral3": Family(template="mistral3", tokenizer=MISTRAL3, end="</s>", names=S_NAMES, rewrites=True),
    "tekken": Family(template="tekken", tokenizer=TEKKEN, end="</s>", names=S_NAMES, rewrites=True),
    "gemma2": Family(
        template="gemma2", tokenizer=GEMMA, end="<end_of_turn>", names=GEMMA_NAMES, system_role=False
    ),
    "gemma3": Family(template="gemma3", tokenizer=GEMMA, end="<end_of_turn>", names=GEMMA_NAMES),
}


def template_of(name: str) -> str:
    return (TEMPLATES / f"{name}.jinja").read_text()


def make_tokenizer(name: str, **changes: str) -> PreTrainedTokenizerFast:
    """A family's tokenizer; `changes` replace its template or the names of its tokens."""
    family = FAMILIES[name]
    options = {"chat_template": template_of(family.template), **family.names, **changes}
    return PreTrainedTokenizerFast(
        tokenizer_object=family.tokenizer, clean_up_tokenization_spaces=False, **options
    )
