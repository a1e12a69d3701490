"""The door for the agents' own connections, over which the hub reaches their engines."""

from __future__ import annotations

from typing import Any

from flask import Response, request

from app.blueprints.agent_api.api import blueprint
from app.blueprints.agent_api.guard import bearer_secret, current_node
from app.core.domain.errors import InvalidInput
from app.web.relay import relay_hub
from app.web.relay.websocket import BadWebSocket, handshake
from app.web.transaction import release


class _Taken(Response):
    """Nothing is left to say on this connection: gunicorn closes it."""

    def __call__(self, *_args: Any, **_kwargs: Any) -> Any:
        raise StopIteration


# The second rule is for those who come without an upgrade: they too are asked who they are.
@blueprint.get("/agent/v1/relay", websocket=True)
@blueprint.get("/agent/v1/relay")
def relay() -> Response:
    """Hold an agent's WebSocket until it ends."""
    sock = request.environ.get("gunicorn.socket")
    try:
        greeting = handshake(request.environ)
    except BadWebSocket as error:
        raise InvalidInput(str(error)) from None
    if sock is None:
        raise InvalidInput("This server can't hold a WebSocket; gunicorn can.")
    node = current_node()
    node_id, client_id, secret = node.id, node.client_id, bearer_secret()
    release()
    relay_hub().serve(sock, greeting, node_id=node_id, client_id=client_id, secret=secret)
    return _Taken()
