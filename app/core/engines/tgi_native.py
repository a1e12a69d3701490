"""TGI's own protocol: `/generate_stream`, for prompts that are no chat."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from app.core.domain.runs import Chunk, FinishReason, RunRequest, Sampling, Usage
from app.core.engines import failures
from app.core.engines.chat_stream import count, finish_reason, text_of
from app.core.engines.messages import without_markdown_images
from app.core.engines.stops import StopCutter
from app.core.engines.wire import EventStream

# TGI takes any number, counts in slices of 1024 and overshoots; this only has to fit its u32.
_MAX_NEW_TOKENS = 1_000_000


def generate_body(request: RunRequest) -> dict[str, Any]:
    """The body of /generate_stream. Null keys are left out: TGI answers 422 to some.

    `details` is asked for because the finish reason and the counts come with it alone.
    """
    sampling = request.sampling
    is_greedy = sampling.temperature == 0
    parameters = {
        "details": True,
        "do_sample": not is_greedy,
        "return_full_text": False,
        "max_new_tokens": token_limit(sampling.max_tokens),
        "temperature": None if is_greedy else sampling.temperature,
        "top_k": sampling.top_k if sampling.top_k and sampling.top_k > 0 else None,
        "top_p": top_p(sampling.top_p),
        "seed": seed(sampling.seed),
        "stop": list(sampling.stop) or None,
        "frequency_penalty": sampling.frequency_penalty or None,
        "repetition_penalty": sampling.repetition_penalty,
        "grammar": grammar(request.response_format),
    }
    return {
        "inputs": without_markdown_images(request.prompt),
        "parameters": {key: value for key, value in parameters.items() if value is not None},
    }


def read_chunks(events: EventStream, sampling: Sampling) -> Generator[Chunk, None, None]:
    """The chunks of a native stream; the last alone has a finish reason.

    The answer ends before a stop text, as in the OpenAI API, and after the tokens that were
    asked for: TGI itself leaves the stop text in and may generate past the limit.
    """
    cutter = StopCutter(sampling.stop)
    for tokens, event in enumerate(events, start=1):
        text = cutter.feed(_token_text(event))
        if text:
            yield Chunk(text)
        if event.get("generated_text") is not None:
            rest = cutter.rest()
            if rest:
                yield Chunk(rest)
            events.drain()
            yield _last_chunk(event, tokens)
            return
        if cutter.has_stopped:
            yield Chunk(finish_reason=FinishReason.STOP, usage=Usage(None, tokens))
            return
        if sampling.max_tokens is not None and tokens >= sampling.max_tokens:
            rest = cutter.rest()
            if rest:
                yield Chunk(rest)
            yield Chunk(finish_reason=FinishReason.LENGTH, usage=Usage(None, tokens))
            return
    raise failures.broke("The engine's stream ended before the answer did.")


def token_limit(max_tokens: int | None) -> int | None:
    """How many tokens to ask TGI for."""
    return None if max_tokens is None else min(max_tokens, _MAX_NEW_TOKENS)


def top_p(value: float | None) -> float | None:
    """TGI takes top_p between 0 and 1 only, without the ends; 1 means to leave it out."""
    return None if value is None or value >= 1 else max(value, 0.001)


def seed(value: int | None) -> int | None:
    """TGI's seed has 64 bits and no sign."""
    return None if value is None else value & (2**64 - 1)


def grammar(response_format: dict[str, Any] | None) -> dict[str, Any] | None:
    """OpenAI's response_format as TGI's `{type, value}`.

    TGI can only force JSON of a known schema, so plain `json_object` is left to the prompt,
    which OpenAI's API wants to ask for JSON anyway.
    """
    if not response_format:
        return None
    if response_format.get("type") == "json_schema":
        described = response_format.get("json_schema")
        schema = described.get("schema") if isinstance(described, dict) else None
        return {"type": "json", "value": schema} if isinstance(schema, dict) else None
    if response_format.get("type") in ("json", "regex") and "value" in response_format:
        return {"type": response_format["type"], "value": response_format["value"]}
    return None


def _token_text(event: dict[str, Any]) -> str:
    token = event.get("token")
    if not isinstance(token, dict):
        raise failures.broke("The engine sent an event without a token.")
    return "" if token.get("special") else text_of(token.get("text"))


def _last_chunk(event: dict[str, Any], tokens: int) -> Chunk:
    details = event.get("details")
    if not isinstance(details, dict):
        return Chunk(finish_reason=FinishReason.STOP, usage=Usage(None, tokens))
    usage = Usage(
        input_tokens=count(details.get("input_length")),
        output_tokens=count(details.get("generated_tokens")) or tokens,
    )
    said = details.get("finish_reason")
    return Chunk(finish_reason=finish_reason(str(said or "stop")), usage=usage)
