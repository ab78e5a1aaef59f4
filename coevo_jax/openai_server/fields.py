"""The fields of the requests: what they may be, and those that this server cannot honour.

They are OpenAI's, and those of vLLM that environments of others read answers by. A field that asks for what
the engine does not do is refused, unless it asks for nothing; none is ignored silently.
"""

import json
import re
from collections.abc import Container, Mapping
from typing import Annotated, Any, TypeVar

from pydantic import Field

from coevo_jax.config.strict import ConfigError, StrictModel, validate
from coevo_jax.openai_server.refusal import Refusal

MOST_LIKELIEST = 20  # alternatives of a token, as OpenAI's API has it
MOST_CHOICES = 64
MOST_STOPS = 16
NEUTRAL: dict[str, tuple[Any, ...]] = {
    # What each may say, for then it asks for nothing. Null is always such a value.
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "repetition_penalty": (1,),
    "length_penalty": (1,),
    "logit_bias": ({},),
    "echo": (False,),
    "suffix": ("",),
    "best_of": (1,),
    "use_beam_search": (False,),
    "min_tokens": (0,),
    "ignore_eos": (False,),
    "skip_special_tokens": (),
    "spaces_between_special_tokens": (True,),
    "add_generation_prompt": (True,),
    "continue_final_message": (False,),
    "add_special_tokens": (False,),
    "prompt_logprobs": (),
    "truncate_prompt_tokens": (),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "structured_outputs": (),
    "chat_template": (),
    "chat_template_kwargs": ({},),
    "reasoning_effort": (),
    "include_reasoning": (True,),
    "verbosity": (),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "web_search_options": (),
    "store": (False,),
    "service_tier": ("auto", "default"),
    "priority": (0,),
}
NEUTRAL_IN_MESSAGES: dict[str, tuple[Any, ...]] = {"tool_calls": ([],), "annotations": ([],)}
LABELS = (
    "user",
    "metadata",
    "safety_identifier",
    "prompt_cache_key",
    "cache_salt",
    "session_id",
    "request_id",
)
"""Fields that name whose a request is, and change no answer."""

Stop = Annotated[str, Field(min_length=1)]
TokenId = Annotated[int, Field(ge=0)]


class StreamOptions(StrictModel):
    """How an answer is streamed."""

    include_usage: bool | None = None
    """One more piece, which counts the tokens."""
    include_obfuscation: bool | None = None
    """Random padding, which this server never sends."""


class SampledFields(StrictModel):
    """Fields of both kinds of requests; null takes the default."""

    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = Field(default=None, ge=1, le=MOST_CHOICES)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    temperature: float | None = Field(default=None, ge=0)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=-1)
    min_p: float | None = Field(default=None, ge=0, lt=1)
    max_tokens: int | None = Field(default=None, ge=1)
    stop: Stop | tuple[Stop, ...] | None = None
    stop_token_ids: tuple[TokenId, ...] | None = None
    include_stop_str_in_output: bool | None = None
    return_token_ids: bool | None = None
    return_tokens_as_token_ids: bool | None = None


class ContentPart(StrictModel):
    """A part of a message; text is all that an agent reads."""

    type: str = Field(pattern="^(text|input_text)$")
    text: str


class Message(StrictModel):
    """A message of a conversation."""

    role: str = Field(pattern="^(system|developer|user|assistant)$")
    content: str | tuple[ContentPart, ...] | None = None
    prompt_token_ids: tuple[TokenId, ...] | None = None
    """Of an answer: the tokens that it was the answer to."""
    generation_token_ids: tuple[TokenId, ...] | None = None
    """Of an answer: its own tokens, which take the place of its text."""
    generation_log_probs: tuple[float, ...] | None = None
    """Of an answer: what it was drawn with, which changes nothing now."""

    @property
    def text(self) -> str:
        if isinstance(self.content, tuple):
            return "".join(part.text for part in self.content)
        return self.content or ""


class ChatFields(SampledFields):
    """A request to /v1/chat/completions."""

    messages: tuple[Message, ...] = Field(min_length=1)
    tokens: tuple[TokenId, ...] | None = Field(default=None, min_length=1)
    """The whole prompt, in place of the messages: of /v1/chat/completions/tokens alone."""
    max_completion_tokens: int | None = Field(default=None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=MOST_LIKELIEST)


class CompletionFields(SampledFields):
    """A request to /v1/completions."""

    prompt: str | tuple[TokenId, ...] | tuple[str, ...] | tuple[tuple[TokenId, ...], ...]
    logprobs: int | None = Field(default=None, ge=0, le=MOST_LIKELIEST)


class TokenizeFields(StrictModel):
    """A request to /tokenize: a text, or a conversation up to where the agent speaks."""

    model: str | None = None
    prompt: str | None = None
    messages: tuple[Message, ...] | None = Field(default=None, min_length=1)


_HALF = re.compile("[\ud800-\udfff]")
F = TypeVar("F", bound=StrictModel)


def read_fields(kind: type[F], data: Any) -> F:
    """Check a request.

    Raises:
      Refusal: a field is unknown, of another type or out of bounds, or asks for what this server cannot do.
    """
    if not isinstance(data, dict):
        raise Refusal(status=400, message="found no JSON object, expected one")
    try:
        halved = _HALF.search(json.dumps(data, ensure_ascii=False))
    except RecursionError:
        raise Refusal(status=400, message="found fields that are nested too deep") from None
    if halved:
        raise Refusal(status=400, message="found half of a surrogate pair, expected text")
    labelled = {key: value for key, value in data.items() if key not in LABELS}
    kept = _honoured(labelled, NEUTRAL, kind.model_fields)
    if isinstance(messages := kept.get("messages"), list):
        kept["messages"] = [_honoured_message(one) for one in messages]
    try:
        return validate(kind, kept, "request")
    except (ConfigError, ValueError) as error:
        raise Refusal(status=400, message=str(error), param=_field(str(error))) from None


def _honoured_message(message: Any) -> Any:
    if not isinstance(message, dict):
        return message
    return _honoured(message, NEUTRAL_IN_MESSAGES, Message.model_fields)


def _honoured(data: Mapping[str, Any], neutral: Mapping[str, tuple[Any, ...]], own: Container[str]) -> dict:
    """The fields that say something; null says nothing.

    Raises:
      Refusal: one asks for what this server cannot do.
    """
    kept = {}
    for key, value in data.items():
        if value is None:
            continue
        if key in own or key not in neutral:
            kept[key] = value
        elif value not in neutral[key]:
            may = " or ".join([*map(repr, neutral[key]), "null"])
            message = f"{key}: found {_short(value)}, expected {may}: this server cannot honour it"
            raise Refusal(status=400, message=message, param=key, code="unsupported_parameter")
    return kept


def _field(message: str) -> str | None:
    """The dotted key that a line of `validate` begins with."""
    found = re.match(r"request: ([\w.\[\]]+): ", message)
    return found[1] if found else None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
