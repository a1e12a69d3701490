"""The agent, handed out by the hub: a wheel for pip, and a script that installs and starts it."""

from __future__ import annotations

import shlex
from urllib.parse import quote

from flask import Response, make_response, render_template, request
from flask.typing import ResponseReturnValue

from app.blueprints.dashboard.pages import blueprint
from app.core.agent_package import agent_package, model_pin
from app.core.domain.errors import NotFound
from app.web.context import base_url


@blueprint.get("/join.sh")
def show_join_script() -> ResponseReturnValue:
    """What `curl … | sh` runs on a provider's machine. Nothing in it is secret."""
    script = render_template(
        "dashboard/join.sh",
        hub=shlex.quote(base_url()),
        wheel=shlex.quote(wheel_url()),
        model=shlex.quote(model_pin()),
    )
    # As plain text, so that a browser shows what one is about to run.
    answer = Response(script, mimetype="text/plain")
    answer.headers["Cache-Control"] = "no-cache"
    return answer


@blueprint.get("/join/<filename>")
def download_agent(filename: str) -> ResponseReturnValue:
    """The agent's wheel under its current name; other versions are gone."""
    package = agent_package()
    if filename != package.filename:
        raise NotFound("This version of the agent is not here any more.")
    answer = make_response(package.data)
    answer.mimetype = "application/zip"
    answer.headers["Content-Disposition"] = f'attachment; filename="{filename}"'
    answer.headers["Cache-Control"] = "public, max-age=86400, immutable"
    answer.set_etag(package.sha256)
    return answer.make_conditional(request.environ)


def wheel_url() -> str:
    """Where pip finds the agent's wheel."""
    return f"{base_url()}/join/{quote(agent_package().filename)}"
