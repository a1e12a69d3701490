"""Everything that a use case can refuse, each with a stable code.

Errors know no HTTP and no dialect: `app.web.errors` alone maps a code to a status
and renders it in the shape of the API that was called.
"""

from __future__ import annotations


class DomainError(Exception):
    """A refusal that the caller can understand. `code` is stable; `message` is a sentence."""

    code = "error"

    def __init__(
        self,
        message: str = "",
        *,
        field: str | None = None,
        retry_after_seconds: int | None = None,
    ) -> None:
        super().__init__(message or self.__class__.__doc__ or self.code)
        self.message = str(self)
        self.field = field
        self.retry_after_seconds = retry_after_seconds


class InvalidInput(DomainError):
    """The request is not valid."""

    code = "invalid"


class Unauthenticated(DomainError):
    """Could not validate credentials."""

    code = "unauthenticated"


class TwoCredentials(DomainError):
    """Send one credential, not several."""

    code = "two_credentials"


class Forbidden(DomainError):
    """This account may not do that."""

    code = "forbidden"


class NotFound(DomainError):
    """Not found."""

    code = "not_found"


class ModelNotFound(NotFound):
    """The network does not know this model."""

    code = "model_not_found"


class Conflict(DomainError):
    """That conflicts with what is there."""

    code = "conflict"


class Taken(Conflict):
    """That name is taken. `field` says which."""

    code = "taken"


class TooLarge(DomainError):
    """The request is too large."""

    code = "too_large"


class RateLimited(DomainError):
    """Too many requests."""

    code = "rate_limited"


class NoCapacity(DomainError):
    """No node can serve this model now."""

    code = "no_capacity"


class Unavailable(DomainError):
    """This service is not available now."""

    code = "unavailable"


class PromptTooLong(InvalidInput):
    """The prompt does not fit in the model's context."""

    code = "context_length_exceeded"


class EngineError(DomainError):
    """An engine failed.

    `retryable`: another node may succeed. `reason` is stable: engine_unreachable,
    engine_refused, engine_timeout, engine_broke, engine_overloaded, engine_rejected.
    """

    code = "engine_error"

    def __init__(self, message: str, *, reason: str = "engine_broke", retryable: bool = True):
        super().__init__(message)
        self.reason = reason
        self.retryable = retryable


class EngineOverloaded(EngineError):
    """The engine has no room now."""

    code = "engine_overloaded"

    def __init__(self, message: str, *, retry_after_seconds: int | None = None) -> None:
        super().__init__(message, reason="engine_overloaded")
        self.retry_after_seconds = retry_after_seconds


class EngineRejected(EngineError):
    """The engine says that the request itself is wrong; no other node would take it."""

    code = "engine_rejected"

    def __init__(self, message: str) -> None:
        super().__init__(message, reason="engine_rejected", retryable=False)
