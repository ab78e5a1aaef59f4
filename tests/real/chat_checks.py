"""What docs/chat.md claims of a chat format, held against a real tokenizer and a real template."""

import json
import random
import unicodedata
from dataclasses import replace
from pathlib import Path

import numpy as np

from coevo_jax.config.options import RolloutConfig
from coevo_jax.data.chat.format import ChatFormat, chat_format, render
from coevo_jax.data.chat.tokenizer import load_tokenizer
from coevo_jax.data.interchange import convert, read_conversations, render_conversation
from coevo_jax.data.interchange.sets import Problems
from coevo_jax.models.transformer import Transformer
from coevo_jax.rollout import force
from coevo_jax.sampling.engine import Engine
from coevo_jax.trajectory import Demonstration, Ending, Trajectory, Turn
from tests.fresh import fresh_params
from tests.scripted_env import CONFIG

SYSTEM, TASK, DATE = "Be brief.", "Count the singers.\n\n[INST] </s> <|im_end|>", "26 Jul 2024"
TURNS = (
    Turn(response="Thought: I count.\nAction: execute[SELECT 1]", action="", observation="[('a',)]\n  42 x"),
    Turn(response="Action: b[ c ]", action="b[ c ]", observation="None"),
    Turn(response="Thought: 'tis done…\nAction: submit", action="submit", observation="never shown"),
)
PLAYED = (
    "Action: a",
    "I must.\n</think>\n\nAction: a",
    "\n</think>\n\nAction: a",
    "<think>\nI must.\n</think>\n\nAction: a",
    "<think>\n\n</think>\n\nAction: a",
    "I mus",
    "",
)
TRIES = 100
LENGTH = 512


def opens_thoughts(folder: Path) -> bool:
    """Whether the prompts of a folder's template open a thought."""
    return "<think>" in chat_format(load_tokenizer(folder)).glue.opened


def check_chat(folder: Path, *, rewrites: bool, common: Path | None = None) -> str:
    """Hold a folder's tokenizer and template against the claims; what was compared, in words.

    Args:
      common: what mistral-common encodes of some conversations.

    Raises:
      AssertionError: one does not hold.
    """
    chat = chat_format(load_tokenizer(folder))
    whole = _renderings(chat, rewrites)
    whole += 0 if common is None else _as_mistral(chat, json.loads(common.read_text()))
    masks = _masks(chat)
    _forced(chat)
    hostile = _hostile(chat)
    played = _played(chat, folder)
    return (
        f"{whole} renderings, {masks} masks, {len(TURNS)} forced turns, {hostile} contents, {played} played"
    )


def _messages(chat: ChatFormat, system: str, turns: tuple[Turn, ...]) -> list[dict[str, str]]:
    task = TASK
    if system and not _takes_system(chat):
        system, task = "", f"{system}\n\n{task}"
    found = [{"role": "system", "content": system}] * bool(system) + [{"role": "user", "content": task}]
    for turn in turns:
        thoughts, _, words = turn.response.rpartition("\n</think>\n\n")
        thoughts = {"reasoning_content": thoughts.removeprefix("<think>\n")} if thoughts else {}
        found.append({"role": "assistant", "content": words} | thoughts)
        found.append({"role": "user", "content": turn.observation})
    return found[:-1] if turns else found


def _takes_system(chat: ChatFormat) -> bool:
    return chat.glue.before_system != chat.glue.before_prompt or chat.glue.after_system != "\n\n"


def _theirs(chat: ChatFormat, messages: list[dict[str, str]], speak: bool) -> list[int]:
    """The ids of transformers' own rendering of a conversation.

    The text of a control token in a message becomes one there: contents are compared without.
    """
    options = {"add_generation_prompt": speak, "date_string": DATE}
    text = chat.tokenizer.apply_chat_template(messages, tokenize=False, **options)
    assert isinstance(text, str)
    return chat.tokenizer(text, add_special_tokens=False)["input_ids"]


def _renderings(chat: ChatFormat, rewrites: bool) -> int:
    """Prompts, and conversations as far as the template rewrites nothing, in transformers' own tokens."""
    compared, plain = 0, TASK.partition("\n\n")[0]
    opens = bool(chat.glue.opened) and "</think>" not in chat.glue.opened
    thought = (
        "<think>\nI must.\n</think>\n\n" if opens else ""
    )  # an empty one has other tokens, as it is played
    turns = tuple(replace(turn, response=thought + turn.response) for turn in TURNS)
    for system in ("", SYSTEM, "Two\nlines: <a>"):
        for count in range(2 if rewrites else len(turns) + 1):
            messages = _messages(chat, system, turns[:count])
            first = 1 if messages[0]["role"] == "system" else 0
            folded = bool(system) and not first
            messages[first]["content"] = f"{system}\n\n{plain}" if folded else plain
            ours, _ = render(chat, system, plain, turns[:count])
            theirs = _theirs(chat, messages, speak=not count)
            if count and not _shows_thoughts(chat, theirs):
                continue
            seen = (system, count, _pieces(chat, ours), _pieces(chat, theirs))
            assert ours.tolist() == theirs[: len(ours)], seen
            assert not _text(chat, theirs[len(ours) :]).strip(), seen
            compared += 1
    return compared


def _shows_thoughts(chat: ChatFormat, theirs: list[int]) -> bool:
    """Whether a template renders a turn just played as it was: QwQ's and R1's leave its thoughts out."""
    return "<think>" not in chat.glue.opened or "<think>" in _text(chat, theirs)


def _as_mistral(chat: ChatFormat, encoded: dict[str, list[int]]) -> int:
    """Prompts and a turn are what mistral-common encodes, but for a system prompt that it moves along."""
    compared = 0
    turn = Turn(response="Thought: I count.\nAction: submit", action="submit", observation="None")
    for which, theirs in encoded.items():
        system, _, turns = which.partition("|")
        ours = chat.prompt_ids(system, "Count the singers.")
        if turns == "1":
            ours += [*chat.response_ids(turn.response), *chat.observation_ids(turn.observation)]
        moved = (
            turns == "1" and system and _text(chat, theirs).find(system) > _text(chat, theirs).find("Count")
        )
        assert moved or ours == theirs, (which, _pieces(chat, ours), _pieces(chat, theirs))
        compared += not moved
    return compared


def _pieces(chat: ChatFormat, ids) -> list[str]:
    return chat.tokenizer.convert_ids_to_tokens(list(map(int, ids)))


def _text(chat: ChatFormat, ids) -> str:
    return chat.tokenizer.backend_tokenizer.decode(list(map(int, ids)), skip_special_tokens=False)


def _masks(chat: ChatFormat) -> int:
    """The agent's are its turns alone, each with the token that ends it, and decode to its words."""
    for system in ("", SYSTEM):
        tokens, mask = render(chat, system, TASK, TURNS)
        edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(int)))
        spans = list(zip(edges[::2], edges[1::2], strict=True))
        assert [chat.decode_response(tokens[a:b].tolist()) for a, b in spans] == [t.response for t in TURNS]
        assert all(int(tokens[b - 1]) == chat.end_id for _, b in spans)
        assert not any(chat.end_id in tokens[a : b - 1] for a, b in spans)
    return 2 * len(TURNS)


def _forced(chat: ChatFormat) -> None:
    """Experts' turns written through the engine are the rendered turns."""
    model = Transformer(CONFIG, chat.vocab_size)
    options = RolloutConfig(slots=1, max_tokens=LENGTH, max_turn_tokens=64, decode_block=16)
    engine = Engine(model, options, end_id=chat.end_id)
    turns = tuple(replace(turn, action=turn.action or "execute[SELECT 1]") for turn in TURNS)
    demonstration = Demonstration(task_id="task/0", prompt=TASK, turns=turns, reward=1.0)
    trajectory = force(engine, fresh_params(model), chat, SYSTEM, demonstration)
    tokens, mask = render(chat, SYSTEM, TASK, TURNS)
    np.testing.assert_array_equal(trajectory.tokens, tokens)
    np.testing.assert_array_equal(trajectory.agent_mask, mask)
    assert trajectory.ending is Ending.SOLVED


def _hostile(chat: ChatFormat) -> int:
    """No content yields a control token, whatever it looks like; and it comes back."""
    rng = random.Random(0)
    words = [token.content for token in chat.tokenizer.added_tokens_decoder.values()]
    words = words if len(words) < 400 else [*rng.sample(words, 300), *chat.sections.control_ids]
    words += ["<s>", "</s>", "[INST]", "<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<｜User｜>", "<0x0A>"]
    words += [" ", "  ", "\n", "\n\n", "\t", "'s", "a", "é", "日本", "👩‍🚀", "Action: "]
    empty = [id for id in chat.prompt_ids("s", "p") if id in chat.sections.forbidden]
    for _ in range(TRIES):
        text = "".join(rng.choices(words, k=rng.randint(1, 6)))
        response = chat.response_ids(text)
        assert chat.sections.forbidden.isdisjoint(response[:-1]), text
        prompt = chat.prompt_ids(text, text)
        assert [id for id in prompt if id in chat.sections.forbidden] == empty, text
        if not any(word in text for word in ("<think>", "</think>")):
            assert _same(chat.decode_response(response), text), (chat.decode_response(response), text)
    return TRIES


def _same(found: str, text: str) -> bool:
    """Equal but for what tokenizers themselves cannot tell apart: normal forms, and ▁ of SentencePiece's."""
    return found in (text, unicodedata.normalize("NFC", text), text.replace("▁", " "))


def _played(chat: ChatFormat, folder: Path) -> int:
    """A played turn's text, rendered again, is the turn; through files too."""
    for text in PLAYED:
        for ended in (True, False):
            ids = [*chat.sections.encode(text, "inside"), *[chat.end_id] * ended]
            told = chat.decode_response(ids)
            assert chat.decode_response(chat.response_ids(told)) == told, (text, told)
            if chat.glue.opened and "</think>" in text and ended and not text.startswith("<think>"):
                assert chat.response_ids(told) == ids, (text, told)
    told = [chat.decode_response([*chat.sections.encode(text, "inside"), chat.end_id]) for text in PLAYED[:5]]
    turns = tuple(Turn(response=text, action="a", observation="o") for text in told)
    tokens, mask = render(chat, SYSTEM, TASK, turns)
    played = Trajectory(
        task_id="t",
        agent="target",
        sample=0,
        prompt=TASK,
        turns=turns,
        reward=1.0,
        ending=Ending.SOLVED,
        tokens=tokens,
        agent_mask=mask,
        logps=np.zeros(len(tokens), np.float32),
    )
    path = folder / "played.jsonl"
    convert([("", played)], path, "messages", problems=Problems(0), system_prompt=SYSTEM)
    [conversation] = read_conversations(str(path), None, None, Problems(0))
    again = render_conversation(chat, conversation, SYSTEM)
    np.testing.assert_array_equal(again.tokens, tokens)
    np.testing.assert_array_equal(again.agent_mask, mask)
    path.unlink()
    return len(PLAYED)
