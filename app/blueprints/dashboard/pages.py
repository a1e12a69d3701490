"""The dashboard's blueprint, before its routes are on it, and how its pages are rendered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from flask import (
    Blueprint,
    Response,
    make_response,
    redirect,
    render_template,
    request,
    url_for,
)
from flask.typing import ResponseReturnValue

from app.core.domain.errors import Forbidden
from app.extensions import csrf
from app.web.auth import current_identity, find_identity, peek_session
from app.web.pages import install_pages, wants_fragment
from app.web.uploads import STREAMED

if TYPE_CHECKING:
    from flask import Flask

blueprint = Blueprint("dashboard", __name__)
blueprint.record_once(lambda state: install_pages(cast("Flask", state.app)))

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
# Doors that are open to visitors; every other route needs a session.
OPEN_ENDPOINTS = frozenset(
    f"dashboard.{name}"
    for name in (
        "download_agent",  # pip and curl on a machine that wants to join
        "show_join_script",
        "download_apk",  # phones fetch a published app by its QR code
        "show_sign_in",
        "sign_in",
        "show_sign_up",
        "sign_up",
        "ask_google",
        "show_google_answer",
        "sign_in_with_google",
        "show_forgot_password",
        "forgot_password",
        "show_reset_password",
        "reset_password",
    )
)
# Forms with files in them; nobody but an admin may send these.
_ADMIN_UPLOADS = {"dashboard.upload_apk": 513 * 2**20}
_MAX_REFUSED_FORM = 2**20
_UPLOADS = {"dashboard.ask_research": 12 * 2**20}  # an image and a question


@dataclass(frozen=True, slots=True)
class NavLink:
    """One room in the navigation."""

    text: str
    href: str
    icon: str
    is_current: bool


@dataclass(frozen=True, slots=True)
class NavGroup:
    """Rooms that belong together."""

    title: str
    links: tuple[NavLink, ...]


# Title, then (text, endpoint, icon). A later room adds its line here.
_ROOMS: tuple[tuple[str, tuple[tuple[str, str, str], ...]], ...] = (
    (
        "Use",
        (
            ("Overview", "show_overview", "overview"),
            ("Playground", "show_playground", "playground"),
            ("Research", "show_research", "research"),
            ("Data", "show_data", "datasets"),
            ("Runs", "show_runs", "runs"),
            ("API keys", "show_keys", "keys"),
        ),
    ),
    (
        "Provide",
        (
            ("Nodes", "show_nodes", "nodes"),
            ("Points", "show_points", "points"),
            ("Models", "show_models", "models"),
            ("Apps", "show_apps", "apks"),
        ),
    ),
    ("You", (("Account", "show_account", "account"),)),
)
_ADMIN_ROOMS = (("Admin", (("Administration", "show_admin", "admin"),)),)
# The four rooms in the bar of a phone; the rest is under "More".
_TABS = frozenset({"show_overview", "show_playground", "show_runs", "show_nodes"})


@blueprint.before_request
def _guard() -> ResponseReturnValue | None:
    """Send visitors to the sign-in; refuse what a foreign page makes the browser send."""
    if request.method not in _SAFE_METHODS:
        _limit_upload()
        if request.endpoint not in STREAMED:  # these read their form, and its token, themselves
            csrf.protect()
    identity = find_identity()
    if identity is not None and identity.model_name is not None:
        raise Forbidden(f"This key opens the model {identity.model_name} under /v1 only.")
    if identity is not None or request.endpoint in OPEN_ENDPOINTS:
        return None
    if wants_fragment() or request.method not in _SAFE_METHODS:
        return Response("Sign in first.", 401, mimetype="text/plain")
    return redirect(url_for("dashboard.show_sign_in", next=request.full_path.rstrip("?")), 303)


def _limit_upload() -> None:
    """Before a form with a file is read: how large it may be, and from whom."""
    if request.endpoint in _ADMIN_UPLOADS:
        identity = peek_session()
        is_admin = identity is not None and identity.is_admin
        most = _ADMIN_UPLOADS[request.endpoint] if is_admin else _MAX_REFUSED_FORM
        request.max_content_length = most
    elif request.endpoint in _UPLOADS:
        request.max_content_length = _UPLOADS[request.endpoint]


@blueprint.context_processor
def _shared() -> dict[str, Any]:
    """What every page of a signed-in account shows around itself."""
    if find_identity() is None:
        return {"errors": {}}
    shown = _ROOMS + _ADMIN_ROOMS if current_identity().is_admin else _ROOMS
    groups = [NavGroup(title, tuple(_link(*room) for room in rooms)) for title, rooms in shown]
    tabs = [_link(*room) for _, rooms in _ROOMS for room in rooms if room[1] in _TABS]
    return {"me": current_identity(), "nav": groups, "nav_tabs": tabs, "errors": {}}


def _link(text: str, endpoint: str, icon: str) -> NavLink:
    href = url_for(f"dashboard.{endpoint}")
    is_current = request.path == href or (href != "/" and request.path.startswith(f"{href}/"))
    return NavLink(text, href, icon, is_current)


@blueprint.after_request
def _mark(response: Response) -> Response:
    """Pages are personal, and one URL has two forms."""
    response.headers.add("Vary", "HX-Request")
    response.headers.setdefault("Cache-Control", "no-store")
    return response


@blueprint.after_app_request
def _keep_assets(response: Response) -> Response:
    """An asset's address names its content, so browsers need not ask for it again."""
    if request.endpoint == "static" and "v" in request.args and response.status_code == 200:
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
    return response


def page(template: str, *, status: int = 200, **values: Any) -> Response:
    """A page of its own."""
    return make_response(render_template(f"dashboard/{template}.html", **values), status)


def page_or_part(template: str, part: str, **values: Any) -> Response:
    """The page, or for htmx only its part that changes."""
    return page(part if wants_fragment() else template, **values)


def safe_next(target: str | None) -> str:
    """Where to go after signing in: a path of ours, never somebody else's address."""
    parts = urlsplit(target or "")
    is_ours = target and not parts.scheme and not parts.netloc and parts.path.startswith("/")
    if not is_ours or not target or target.startswith("//") or "\\" in target:
        return url_for("dashboard.show_overview")
    return target


def see_other(endpoint: str, **values: Any) -> ResponseReturnValue:
    """Go and look at another page of the dashboard (303)."""
    return redirect(url_for(f"dashboard.{endpoint}", **values), 303)
