"""Answers in the forms of OpenAI's API, with the fields that vLLM adds to them."""

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from coevo_jax.data.chat.format import ChatFormat
from coevo_jax.openai_server.telling import Token, Told

LEAST_LOGP = -9999.0  # in JSON, which has no infinity


@dataclass(frozen=True, kw_only=True)
class Form:
    """What all pieces of an answer share."""

    chat: ChatFormat
    model: str
    kind: str  # "chat" or "completion"
    logprobs: bool
    likeliest: int
    token_ids: bool  # told beside the text
    ids_as_tokens: bool  # tokens are told as "token_id:17"
    prompts: Sequence[Sequence[int]]
    per_prompt: int  # texts
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    created: int = field(default_factory=lambda: int(time.time()))

    def head(self, *, piece: bool) -> dict[str, Any]:
        """The fields that say which answer this is."""
        objects = {"chat": "chat.completion", "completion": "text_completion"}
        kind = objects[self.kind] + (".chunk" if piece and self.kind == "chat" else "")
        prefix = {"chat": "chatcmpl", "completion": "cmpl"}[self.kind]
        return {"id": f"{prefix}-{self.id}", "object": kind, "created": self.created, "model": self.model}

    def prompt_of(self, choice: int) -> list[int]:
        return list(self.prompts[choice // self.per_prompt])

    def name(self, id: int, text: str) -> str:
        """A token for the reader: its text, or where it has none, its word in the vocabulary."""
        if self.ids_as_tokens:
            return f"token_id:{id}"
        return text or str(self.chat.tokenizer.convert_ids_to_tokens(id))

    def alternatives(self, token: Token) -> list[tuple[str, str, float]]:
        """Name, text and log-probability of the likeliest tokens in a token's place."""
        found = []
        for id, logp in token.likeliest[: self.likeliest]:
            text = token.text if id == token.id else self._text(id)
            found.append((self.name(id, text), text, max(logp, LEAST_LOGP)))
        return found

    def _text(self, id: int) -> str:
        return "" if id == self.chat.end_id else self.chat.text_of([id])


def whole_answer(form: Form, told: Sequence[Told]) -> dict[str, Any]:
    """The answer to a request that is not streamed; `told` holds each text whole, in order."""
    choices = []
    for index, one in enumerate(told):
        choice: dict[str, Any] = {"index": index}
        if form.kind == "chat":
            choice["message"] = {"role": "assistant", "content": one.text, "refusal": None}
        else:
            choice["text"] = one.text
        choices.append(choice | _rest(form, one, 0))
        if form.token_ids and form.kind == "completion":
            choices[-1]["prompt_token_ids"] = form.prompt_of(index)
    answer = form.head(piece=False) | {
        "choices": choices,
        "usage": usage(form, [len(t.tokens) for t in told]),
    }
    if form.token_ids and form.kind == "chat":
        answer["prompt_token_ids"] = form.prompt_of(0)
    return answer


def first_pieces(form: Form, count: int) -> list[dict[str, Any]]:
    """The pieces that come before any text: whose the words are, and the prompt's tokens."""
    if form.kind == "completion":
        return []
    delta = {"role": "assistant", "content": ""}
    pieces = []
    for index in range(count):
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}
        pieces.append(form.head(piece=True) | {"choices": [choice]})
    if form.token_ids:
        pieces[0]["prompt_token_ids"] = form.prompt_of(0)
    return pieces


def piece(form: Form, index: int, told: Told, before: int, *, first: bool) -> dict[str, Any]:
    """A piece of a streamed answer.

    Args:
      before: characters of the text that were told before.
      first: whether none of this text was told before.
    """
    choice: dict[str, Any] = {"index": index}
    choice |= {"delta": {"content": told.text}} if form.kind == "chat" else {"text": told.text}
    choice |= _rest(form, told, before)
    if form.token_ids and form.kind == "completion" and first:
        choice["prompt_token_ids"] = form.prompt_of(index)
    return form.head(piece=True) | {"choices": [choice]}


def usage_piece(form: Form, counts: Sequence[int]) -> dict[str, Any]:
    """The piece that counts the tokens of a streamed answer."""
    return form.head(piece=True) | {"choices": [], "usage": usage(form, counts)}


def usage(form: Form, counts: Sequence[int]) -> dict[str, int]:
    """How many tokens were read and written; `counts` are those of each text."""
    read, written = sum(map(len, form.prompts)), sum(counts)
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


def _rest(form: Form, told: Told, before: int) -> dict[str, Any]:
    logprobs = None
    if form.logprobs:
        logprobs = _chat_logprobs(form, told) if form.kind == "chat" else _logprobs(form, told, before)
    rest = {"logprobs": logprobs, "finish_reason": told.finish, "stop_reason": told.stopped_by}
    return rest | ({"token_ids": [token.id for token in told.tokens]} if form.token_ids else {})


def _chat_logprobs(form: Form, told: Told) -> dict[str, Any]:
    def entry(name: str, text: str, logp: float) -> dict[str, Any]:
        return {"token": name, "logprob": logp, "bytes": list(text.encode())}

    content = []
    for token in told.tokens:
        own = entry(form.name(token.id, token.text), token.text, max(token.logp, LEAST_LOGP))
        content.append(own | {"top_logprobs": [entry(*one) for one in form.alternatives(token)]})
    return {"content": content, "refusal": None}


def _logprobs(form: Form, told: Told, before: int) -> dict[str, Any]:
    offsets, likeliest = [], []
    for token in told.tokens:
        offsets.append(before)
        before += len(token.text)
        named = {name: logp for name, _, logp in reversed(form.alternatives(token))}
        likeliest.append(named | {form.name(token.id, token.text): max(token.logp, LEAST_LOGP)})
    return {
        "tokens": [form.name(token.id, token.text) for token in told.tokens],
        "token_logprobs": [max(token.logp, LEAST_LOGP) for token in told.tokens],
        "top_logprobs": likeliest,
        "text_offset": offsets,
    }
