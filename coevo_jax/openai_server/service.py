"""What each path of the API does with a request's body; nothing here knows of HTTP."""

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any

from coevo_jax.data.chat.format import ChatFormat
from coevo_jax.openai_server.answers import Form, first_pieces, piece, usage_piece, whole_answer
from coevo_jax.openai_server.batcher import Batcher, Job
from coevo_jax.openai_server.conversation import Memory, conversation_ids
from coevo_jax.openai_server.fields import (
    ChatFields,
    CompletionFields,
    SampledFields,
    TokenizeFields,
    read_fields,
)
from coevo_jax.openai_server.refusal import Refusal
from coevo_jax.openai_server.telling import Telling, Told
from coevo_jax.openai_server.wanted import COMPLETION_TOKENS, Limits, wanted_texts

Here = Callable[[], bool]
"""Whether the client still waits for its answer."""
Pieces = Generator[dict[str, Any], None, None]
"""A streamed answer; closing it gives up what is not written yet."""


@dataclass(frozen=True, kw_only=True)
class Service:
    """A served agent."""

    name: str  # of the model, for clients
    chat: ChatFormat
    batcher: Batcher
    limits: Limits
    mark: str = ""  # that the user's first message is put under
    memory: Memory = field(default_factory=Memory)
    created: int = field(default_factory=lambda: int(time.time()))

    def models(self) -> dict[str, Any]:
        """The answer of /v1/models."""
        model = {
            "id": self.name,
            "object": "model",
            "created": self.created,
            "owned_by": "coevo_jax",
            "root": self.name,
            "parent": None,
            "max_model_len": self.limits.context,
        }
        return {"object": "list", "data": [model]}

    def tokenize(self, data: Any) -> dict[str, Any]:
        """The answer of /tokenize.

        Raises:
          Refusal: it cannot be answered.
        """
        fields = read_fields(TokenizeFields, data)
        self._check_model(fields.model)
        if (fields.prompt is None) == (fields.messages is None):
            raise Refusal(status=400, message="expected either prompt or messages", param="prompt")
        if fields.messages is not None:
            ids = conversation_ids(self.chat, fields.messages, self.memory, self.mark)
        else:
            ids = self._encoded(fields.prompt or "")
        return {"tokens": ids, "count": len(ids), "max_model_len": self.limits.context}

    def chat_completion(self, data: Any, here: Here, *, by_tokens: bool = False) -> dict[str, Any] | Pieces:
        """The answer of /v1/chat/completions, or its pieces.

        Args:
          by_tokens: the prompt comes as tokens beside the messages.

        Raises:
          Refusal: it cannot be answered.
        """
        fields = read_fields(ChatFields, data)
        if by_tokens != (fields.tokens is not None):
            path = "/v1/chat/completions/tokens"
            raise Refusal(status=400, message=f"tokens: they are a field of {path} alone", param="tokens")
        if fields.top_logprobs and not fields.logprobs:
            raise Refusal(status=400, message="top_logprobs: expected logprobs: true beside it")
        prompt = fields.tokens or conversation_ids(self.chat, fields.messages, self.memory, self.mark)
        return self._answer(
            fields,
            [prompt],
            here,
            kind="chat",
            most=fields.max_completion_tokens or fields.max_tokens,
            logprobs=bool(fields.logprobs),
            likeliest=fields.top_logprobs or 0,
        )

    def completion(self, data: Any, here: Here) -> dict[str, Any] | Pieces:
        """The answer of /v1/completions, or its pieces.

        Raises:
          Refusal: it cannot be answered.
        """
        fields = read_fields(CompletionFields, data)
        return self._answer(
            fields,
            self._prompts(fields.prompt),
            here,
            kind="completion",
            most=fields.max_tokens or COMPLETION_TOKENS,
            logprobs=fields.logprobs is not None,
            likeliest=fields.logprobs or 0,
        )

    def _answer(
        self,
        fields: SampledFields,
        prompts: list[Any],
        here: Here,
        *,
        kind: str,
        most: int | None,
        logprobs: bool,
        likeliest: int,
    ) -> dict[str, Any] | Pieces:
        self._check_model(fields.model)
        if fields.stream_options is not None and not fields.stream:
            raise Refusal(status=400, message="stream_options: expected stream: true beside it")
        wanted = wanted_texts(fields, prompts, self.limits, most=most, likeliest=likeliest)
        jobs = [Job(wanted=one) for one in wanted]
        form = Form(
            chat=self.chat,
            model=self.name,
            kind=kind,
            logprobs=logprobs,
            likeliest=likeliest,
            token_ids=bool(fields.return_token_ids),
            ids_as_tokens=bool(fields.return_tokens_as_token_ids),
            prompts=prompts,
            per_prompt=fields.n or 1,
        )
        self.batcher.submit(jobs)
        tellings = [Telling(self.chat, job) for job in jobs]
        if fields.stream:
            counted = fields.stream_options is not None and bool(fields.stream_options.include_usage)
            return self._pieces(form, jobs, tellings, here, counted=counted)
        pairs = zip(jobs, tellings, strict=True)
        try:
            return whole_answer(form, [self._whole(form, job, one, here) for job, one in pairs])
        finally:
            _give_up(jobs)

    def _whole(self, form: Form, job: Job, telling: Telling, here: Here) -> Told:
        told = [telling.next(here)]
        while told[-1].finish is None:
            told.append(telling.next(here))
        whole = Told(
            text="".join(one.text for one in told),
            tokens=[token for one in told for token in one.tokens],
            finish=told[-1].finish,
            stopped_by=told[-1].stopped_by,
        )
        self._remember(form, job, telling, whole.text)
        return whole

    def _pieces(
        self, form: Form, jobs: list[Job], tellings: list[Telling], here: Here, *, counted: bool
    ) -> Pieces:
        """The pieces of a streamed answer, of one text after the other; all are written side by side."""
        try:
            yield from first_pieces(form, len(jobs))
            for index, (job, telling) in enumerate(zip(jobs, tellings, strict=True)):
                text, first, finish = "", True, None
                while finish is None:
                    told = telling.next(here)
                    finish = told.finish
                    if told.tokens or finish is not None:
                        yield piece(form, index, told, len(text), first=first)
                        text, first = text + told.text, False
                self._remember(form, job, telling, text)
            if counted:
                yield usage_piece(form, [len(one.tokens) for one in tellings])
        finally:
            _give_up(jobs)

    def _remember(self, form: Form, job: Job, telling: Telling, text: str) -> None:
        if form.kind == "chat" and telling.whole_turn:
            self.memory.keep(job.wanted.prompt, text, telling.tokens)

    def _check_model(self, model: str | None) -> None:
        if model not in (None, self.name):
            raise Refusal(
                status=404,
                message=f"The model `{model}` does not exist; this server has `{self.name}`.",
                param="model",
                code="model_not_found",
            )

    def _prompts(self, prompt: Any) -> list[Any]:
        if isinstance(prompt, str):
            return [self._encoded(prompt)]
        if all(isinstance(one, int) for one in prompt):
            return [prompt]
        return [self._encoded(one) if isinstance(one, str) else one for one in prompt]

    def _encoded(self, text: str) -> list[int]:
        """A text's tokens, in which a special token's text is that token and none is added."""
        try:
            return self.chat.tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids
        except UnicodeEncodeError:
            raise Refusal(
                status=400, message="prompt: found half of a surrogate pair, expected text"
            ) from None


def _give_up(jobs: list[Job]) -> None:
    for job in jobs:
        job.given_up = True  # nothing where it is finished
