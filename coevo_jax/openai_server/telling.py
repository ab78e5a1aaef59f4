"""The text of one answer as it is written: what can be told of it, and where words of the request end it."""

import queue
import re
from collections.abc import Callable
from dataclasses import dataclass

from coevo_jax.data.chat.format import ChatFormat
from coevo_jax.data.chat.pieces import Pieces
from coevo_jax.openai_server.batcher import Job, Part
from coevo_jax.openai_server.refusal import Refusal

BYTE = re.compile("<0x[0-9A-Fa-f]{2}>")


@dataclass(frozen=True, kw_only=True)
class Token:
    """A written token."""

    id: int
    text: str  # that it adds
    logp: float
    likeliest: list[tuple[int, float]]


@dataclass(frozen=True, kw_only=True)
class Told:
    """What is new of an answer, final: none of it is taken back."""

    text: str
    tokens: list[Token]
    finish: str | None = None  # of the last one: "stop" or "length"
    stopped_by: int | str | None = None  # the request's token or words that ended it; None is the turn's end


class Telling:
    """An answer that is being written.

    Text is told once nothing that may follow can change it: not the next token, which may finish a
    character, nor words at which the request wants it to end, nor what the chat template writes around it.
    """

    def __init__(self, chat: ChatFormat, job: Job) -> None:
        self._chat, self._job, self._wanted = chat, job, job.wanted
        self._pieces = Pieces(chat.decode_response)
        self._tokens: list[int] = []
        self._logps: list[float] = []
        self._likeliest: list[list[tuple[int, float]]] = []
        self._told = 0  # tokens
        self._searched = 0  # characters in which no words begin that end the text
        self._finish: str | None = None
        self._stopped_by: int | str | None = None
        longest = max((len(words) for words in self._wanted.stop), default=1) - 1
        self._held = max(longest, len(chat.glue.trail))

    @property
    def tokens(self) -> list[int]:
        return self._tokens

    @property
    def whole_turn(self) -> bool:
        """Whether it ended as the agent's turns end, so that its tokens and its text are one."""
        return self._finish == "stop" and self._stopped_by is None

    def next(self, here: Callable[[], bool]) -> Told:
        """Wait for more of it.

        Args:
          here: whether somebody still reads it; asked from time to time.

        Raises:
          Refusal: it cannot be finished.
          ConnectionError: nobody reads it any more; it is given up.
        """
        while True:
            try:
                part = self._job.parts.get(timeout=1.0)
            except queue.Empty:
                if not here():
                    self._job.given_up = True
                    raise ConnectionError("the client has gone") from None
                continue
            if isinstance(part, Refusal):
                raise part
            return self._take(part)

    def _take(self, part: Part) -> Told:
        for token in part.tokens:
            self._pieces.add(token)
        self._tokens += part.tokens
        self._logps += part.logps
        self._likeliest += part.likeliest
        self._finish, self._stopped_by = part.finish, part.stopped_by
        if part.finish is not None:
            self._complete()
        self._stop_at_words()
        count = len(self._tokens) if self._finish is not None else self._settled()
        new = range(self._told, count)
        self._told = count
        texts = self._pieces.texts
        return Told(
            text="".join(texts[place] for place in new),
            tokens=[
                Token(
                    id=self._tokens[place],
                    text=texts[place],
                    logp=self._logps[place],
                    likeliest=self._likeliest[place],
                )
                for place in new
            ],
            finish=self._finish,
            stopped_by=self._stopped_by,
        )

    def _complete(self) -> None:
        """Let the pieces end as the whole text does: with bytes that never became a character."""
        texts = self._pieces.texts
        visible = self._tokens
        if self._stopped_by in self._chat.sections.control_ids.values():  # it ends the text, and is no part
            visible, texts[-1] = visible[:-1], ""
        whole, joined = self._chat.decode_response(visible), "".join(texts)
        if texts and whole.startswith(joined):
            texts[-1] += whole[len(joined) :]

    def _stop_at_words(self) -> None:
        texts = self._pieces.texts
        text = "".join(texts)
        found = [(at, words) for words in self._wanted.stop if (at := text.find(words, self._searched)) >= 0]
        self._searched = max(0, len(text) - max(self._held, len(texts[-1])))
        if not found:
            return
        at, words = min(found)
        kept = text[: at + len(words)] if self._wanted.keep_stop else text[:at]
        reached, count = 0, 0
        while reached < at + len(words):
            reached += len(texts[count])
            count += 1
        self._tokens, self._pieces.texts = self._tokens[:count], []
        for piece in texts[:count]:
            self._pieces.texts.append(kept[: len(piece)])
            kept = kept[len(piece) :]
        self._finish, self._stopped_by, self._job.given_up = "stop", words, True

    def _settled(self) -> int:
        """How many tokens have texts that stay."""
        texts = self._pieces.texts
        text = "".join(texts)
        start = self._chat.response_start
        if not self._told and start and (self._chat.glue.opened + start).startswith(text):
            return 0  # what the template writes before an agent's words is no part of them
        count, length = len(texts), len(text)
        while count > self._told and (
            count == len(texts) or length > len(text) - self._held or self._is_byte(self._tokens[count])
        ):
            count -= 1
            length -= len(texts[count])
        return max(count, self._told)

    def _is_byte(self, token: int) -> bool:
        """Whether a token is a byte by name: a run of them is decoded together, whole or not at all."""
        name = self._chat.tokenizer.convert_ids_to_tokens(token)
        return isinstance(name, str) and BYTE.fullmatch(name) is not None
