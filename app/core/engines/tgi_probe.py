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
from typing import TYPE_CHECKING, Any

from app.core.domain.errors import EngineError
from app.core.engines import failures
from app.core.engines.base import EngineTarget
from app.core.engines.http import HttpClient, HttpFailure, Request
from app.core.engines.wire import MAX_JSON_BYTES, engine_url
from app.core.outbound import AddressNotAllowed

if TYPE_CHECKING:
    import httpx2

_BODY_TIMEOUT_SECONDS = 60.0
_install_lock = threading.Lock()
_is_installed = False


@dataclass(frozen=True, slots=True)
class _Call:
    """Whose request it is that the library is about to send."""

    http: HttpClient
    target: EngineTarget


_current: ContextVar[_Call] = ContextVar("weft_tgi_call")


def generate_one_token(http: HttpClient, target: EngineTarget) -> None:
    """Have TGI generate one token and read it as TGI's. Raises EngineError."""
    # Imported here: 0.3 s and 30 MB that only the process that registers engines needs.
    from huggingface_hub import InferenceClient
    from huggingface_hub.errors import HfHubHTTPError, InferenceTimeoutError, TextGenerationError

    _install_transport()
    token = _current.set(_Call(http, target))
    try:
        client = InferenceClient(
            base_url=str(engine_url(target, "/")), token=target.api_key or False
        )
        answer = client.text_generation(
            "Hi", max_new_tokens=1, details=True, return_full_text=False
        )
        if answer.details is None or answer.details.generated_tokens < 1:
            raise failures.broke("The engine answered without generating anything.")
    except TextGenerationError as error:
        raise _from_library(error) from error
    except HfHubHTTPError as error:
        response = error.response
        raise _as_engine_error(
            failures.from_status(response.status_code, response.content)
        ) from error
    except (HttpFailure, InferenceTimeoutError) as error:
        raise failures.from_wire(_wire_failure(error)) from error
    except AddressNotAllowed as error:
        raise EngineError(error.message, reason="engine_refused") from error
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
        raise failures.broke("The engine's answer is not what TGI says.") from error
    finally:
        _current.reset(token)
