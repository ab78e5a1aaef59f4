"""What one request wants written, checked against what the model can hold."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from coevo_jax.openai_server.fields import MOST_STOPS, SampledFields
from coevo_jax.openai_server.refusal import Refusal, too_long

LEAST_TEMPERATURE = 1e-3  # above 0: scores are divided by it in float32
COMPLETION_TOKENS = 16  # of /v1/completions, as OpenAI's API has it where nothing is said


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a served model can hold."""

    context: int  # tokens of a slot: prompt and answer
    vocab_size: int


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """One text to be written."""

    prompt: tuple[int, ...]
    most: int  # tokens
    temperature: float
    top_p: float
    top_k: int  # 0 keeps all
    min_p: float
    seed: int  # in 64 bits
    choice: int  # which of the request's texts
    stop: tuple[str, ...]
    stop_ids: frozenset[int]
    keep_stop: bool  # the text keeps the words that ended it
    likeliest: int  # alternatives told of each token

    @property
    def names(self) -> tuple[int, int, int, int]:
        """The names of its random keys (`sampling.engine.Request.ids`): the seed's two halves, the choice."""
        return self.seed & 0xFFFFFFFF, self.seed >> 32, self.choice, 0


def wanted_texts(
    fields: SampledFields,
    prompts: Sequence[Sequence[int]],
    limits: Limits,
    *,
    most: int | None,
    likeliest: int,
) -> list[Wanted]:
    """The texts that a request asks for: `n` for each prompt, in order of prompts.

    Without a seed they are drawn from a new one. The same seed gives each prompt the same texts, up to
    rounding, whatever else is written beside them.

    Args:
      most: tokens of an answer; None is as many as there is room for.

    Raises:
      Refusal: a prompt is empty, too long with its answer, or no tokens of this model.
    """
    words = (fields.stop,) if isinstance(fields.stop, str) else fields.stop or ()
    if len(words) > MOST_STOPS:
        raise Refusal(
            status=400, message=f"stop: found {len(words)}, expected at most {MOST_STOPS}", param="stop"
        )
    temperature = 1.0 if fields.temperature is None else fields.temperature
    if 0 < temperature < LEAST_TEMPERATURE:
        message = f"temperature: found {temperature}, expected 0 or at least {LEAST_TEMPERATURE}"
        raise Refusal(status=400, message=message, param="temperature")
    seed = secrets.randbits(64) if fields.seed is None else fields.seed % 2**64
    found = []
    for prompt in prompts:
        if not prompt:
            raise Refusal(status=400, message="prompt: found no token, expected at least one", param="prompt")
        if max(prompt) >= limits.vocab_size:
            raise Refusal(
                status=400,
                message=f"prompt: found the token id {max(prompt)}, expected ids below {limits.vocab_size}",
                param="prompt",
            )
        room = limits.context - len(prompt)
        if room < 1 or (most or 1) > room:
            raise too_long(limits.context, len(prompt), most or 1)
        for choice in range(fields.n or 1):
            found.append(
                Wanted(
                    prompt=tuple(prompt),
                    most=most or room,
                    temperature=temperature,
                    top_p=fields.top_p or 1.0,
                    top_k=max(fields.top_k or 0, 0),
                    min_p=fields.min_p or 0.0,
                    seed=seed,
                    choice=choice,
                    stop=words,
                    stop_ids=frozenset(fields.stop_token_ids or ()),
                    keep_stop=bool(fields.include_stop_str_in_output),
                    likeliest=likeliest,
                )
            )
    return found
