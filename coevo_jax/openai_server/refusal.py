"""Why a request is not answered, in the form in which OpenAI's API says so."""

from dataclasses import dataclass
from typing import Any

TYPES = {400: "invalid_request_error", 404: "invalid_request_error", 429: "rate_limit_error"}


@dataclass(frozen=True, kw_only=True)
class Refusal(Exception):
    """A request that is not answered."""

    status: int  # of HTTP
    message: str
    param: str | None = None  # which field of the request is meant
    code: str | None = None  # a word that programs look for

    def body(self) -> dict[str, Any]:
        """The answer's JSON."""
        kind = TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


def too_long(context: int, prompt: int, answer: int) -> Refusal:
    """The refusal of what does not fit; clients look for its first words, and take shorter prompts."""
    return Refusal(
        status=400,
        message=f"This model's maximum context length is {context} tokens. However, you requested "
        f"{prompt + answer} tokens ({prompt} in the prompt, {answer} in the completion). Please reduce the "
        "length of the messages or completion.",
        param="messages",
        code="context_length_exceeded",
    )
