"""The deep check of a TGI engine, through `huggingface_hub.InferenceClient`.

Hugging Face's maintained client knows TGI's requests, answers and errors; it decides here
whether an engine that wants to join really is one. Its own HTTP library never opens a socket:
the transport below hands every request to our client, so that the outbound check, the
relay and the limits hold for it as for everything else.
"""

from __future__ import annotations

import threading
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

from app.core.domain.errors import EngineError, EngineRejected
from app.core.engines import failures
from app.core.engines.base import EngineTarget
from app.core.engines.http import HttpClient, HttpFailure, Request
from app.core.engines.wire import MAX_JSON_BYTES, engine_url
from app.core.outbound import AddressNotAllowed

if TYPE_CHECKING:
    import httpx2

_install_lock = threading.Lock()
_is_installed = False


@dataclass(frozen=True, slots=True)
class _Call:
    """Whose request it is that the library is about to send."""

    http: HttpClient
    target: EngineTarget


_current: ContextVar[_Call] = ContextVar("weft_tgi_call")


def generate_one_token(http: HttpClient, target: EngineTarget) -> None:
    """Have TGI generate one token and read the answer as TGI's. Raises EngineError."""
    # Imported here: only a process that registers engines needs it, and it is heavy.
    from huggingface_hub import InferenceClient
    from huggingface_hub.errors import HfHubHTTPError, TextGenerationError

    url = engine_url(target, "/")
    _install_transport()
    token = _current.set(_Call(http, target))
    try:
        answer = InferenceClient(base_url=str(url)).text_generation(
            "Hi", max_new_tokens=1, details=True, return_full_text=False
        )
        if answer.details is None or answer.details.generated_tokens < 1:
            raise failures.broke("The engine answered without generating anything.")
    except TextGenerationError as error:
        raise _from_cause(error) from error
    except HfHubHTTPError as error:
        raise _from_response(error.response) from error
    except HttpFailure as error:
        raise failures.from_wire(error) from error
    except AddressNotAllowed as error:
        raise EngineError(error.message, reason="engine_refused") from error
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise failures.broke("The engine's answer is not what TGI says.") from error
    finally:
        _current.reset(token)


def _from_cause(error: Exception) -> EngineError:
    """TGI's own kinds of error, which the library raises from the HTTP error it had."""
    response = getattr(error.__cause__, "response", None)
    return (
        _from_response(response)
        if response is not None
        else failures.broke(f"The engine failed: {failures.clean(str(error))}")
    )


def _from_response(response: httpx2.Response) -> EngineError:
    failure = failures.from_status(response.status_code, response.content)
    if isinstance(failure, EngineError):
        return failure
    return EngineRejected(failure.message)


def _install_transport() -> None:
    """Make the library's one HTTP session ours: it can reach engines under probe, and
    nothing else, in this process."""
    global _is_installed
    with _install_lock:
        if _is_installed:
            return
        import httpx2
        from huggingface_hub import set_client_factory

        class Transport(httpx2.BaseTransport):
            def handle_request(self, request: httpx2.Request) -> httpx2.Response:
                return _send(request)

        def make_client() -> httpx2.Client:
            return httpx2.Client(transport=Transport(), trust_env=False, timeout=None)

        set_client_factory(make_client)
        _is_installed = True


def _send(request: httpx2.Request) -> httpx2.Response:
    import httpx2

    call = _current.get(None)
    # The library also calls huggingface.co of its own accord, to learn about agents.
    if call is None or str(request.url) != str(engine_url(call.target, "/")):
        raise httpx2.ConnectError("This process reaches engines alone.", request=request)
    target = call.target
    # The library's own headers stay behind: they may carry a token of the machine's user.
    headers = [*target.relay_headers, ("Content-Type", "application/json")]
    if target.api_key:
        headers.append(("Authorization", f"Bearer {target.api_key}"))
    response = call.http.send(
        Request(
            url=engine_url(target, "/"),
            method="POST",
            headers=tuple(headers),
            body=request.read(),
            via=target.relay,
            connect_timeout_seconds=target.connect_timeout_seconds,
            response_timeout_seconds=target.first_chunk_timeout_seconds,
        )
    )
    content_type = response.headers.get("content-type", "application/json")
    return httpx2.Response(
        response.status,
        headers={"content-type": content_type},
        content=response.read(MAX_JSON_BYTES),
        request=request,
    )
