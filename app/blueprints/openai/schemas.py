"""What callers of the OpenAI API send."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

MAX_MESSAGES = 2000
MAX_STOPS = 16


class Lenient(BaseModel):
    """Foreign clients send more than we read: unknown fields are ignored."""

    model_config = ConfigDict(extra="ignore")


class StreamOptions(Lenient):
    """Whether the stream's last chunk tells the usage."""

    include_usage: bool = False


class Message(BaseModel):
    """One message; its parts go to the engine as they are."""

    model_config = ConfigDict(extra="ignore")

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[dict[str, Any]] | None = None
    name: str | None = Field(None, max_length=200)
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = Field(None, max_length=200)


Stop = str | Annotated[list[str], Field(max_length=MAX_STOPS)] | None


class Sampled(Lenient):
    """What chat and completions have in common."""

    model: str = Field(min_length=1, max_length=200)
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=1, le=1_000_000)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=-1, le=100_000)
    seed: int | None = None
    stop: Stop = None
    n: int | None = Field(1, ge=1, le=1)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    repetition_penalty: float | None = Field(None, gt=0, le=10)


class ChatCompletionBody(Sampled):
    """POST /v1/chat/completions."""

    messages: list[Message] = Field(min_length=1, max_length=MAX_MESSAGES)
    max_completion_tokens: int | None = Field(None, ge=1, le=1_000_000)
    tools: list[dict[str, Any]] | None = Field(None, max_length=128)
    tool_choice: str | dict[str, Any] | None = None
    response_format: dict[str, Any] | None = None


class CompletionBody(Sampled):
    """POST /v1/completions."""

    prompt: str | list[str] = Field(max_length=2_000_000)
    echo: bool | None = False
    suffix: str | None = None

    @model_validator(mode="after")
    def _one_prompt(self) -> CompletionBody:
        if isinstance(self.prompt, list) and len(self.prompt) != 1:
            raise ValueError("send one prompt; several in one request are not supported")
        if self.suffix:
            raise ValueError("suffix is not supported")
        return self


class ModelCard(BaseModel):
    """A model as `/v1/models` lists it."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str


class ModelList(BaseModel):
    """GET /v1/models."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


class RunObject(BaseModel):
    """A run of the caller's."""

    id: str
    object: Literal["run"] = "run"
    model: str
    state: str
    created: int
    finish_reason: str | None
    error: dict[str, Any] | None
    node: str | None
    attempts: int
    usage: dict[str, int | None]
    first_token_ms: int | None
    duration_ms: int | None
    answer: str | None
