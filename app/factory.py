"""create_app: one ordered list of what the hub is made of."""

from __future__ import annotations

from datetime import timedelta

import redis
from flask import Flask, Request
from flask.sessions import SecureCookieSession, SecureCookieSessionInterface
from werkzeug.middleware.proxy_fix import ProxyFix

from app.blueprints import DIALECTS
from app.cli import register_commands
from app.config import Settings
from app.core.database import engine_options, install_rules
from app.extensions import csrf, db, htmx, login_manager
from app.web.auth import install_auth
from app.web.converters import IntegerConverter
from app.web.cors import install_cors
from app.web.dialects import DialectMap
from app.web.docs import install_docs
from app.web.errors import install_error_handlers
from app.web.files import install_files
from app.web.heartbeat_fastpath import install_heartbeats
from app.web.live import install_live
from app.web.relay import install_relay
from app.web.security import install_security_headers


class _Sessions(SecureCookieSessionInterface):
    """Flask's sessions, with nothing built for who brings none: apps with their keys."""

    def open_session(self, app: Flask, request: Request) -> SecureCookieSession | None:
        if self.get_cookie_name(app) not in request.cookies:
            return self.session_class()
        return super().open_session(app, request)


def create_app(settings: Settings | None = None, *, has_commands: bool = True) -> Flask:
    """The web application. Neither Redis nor the database has to run for this to work.

    `has_commands`: whether somebody may ask for `flask db` and the like.
    """
    settings = settings or Settings.from_env()
    app = Flask("app", static_folder="static", template_folder="templates")
    _configure(app, settings)
    app.extensions["weft_settings"] = settings
    app.extensions["weft_redis"] = redis.Redis.from_url(settings.redis_url)
    app.extensions["weft_dialects"] = DialectMap(DIALECTS)
    _init_extensions(app)
    install_auth(app)
    install_live(app)
    install_security_headers(app)
    install_cors(app)
    install_error_handlers(app)
    install_files(app)
    install_docs(app)
    for dialect in DIALECTS:
        app.register_blueprint(dialect.blueprint)
        if dialect.is_api:
            csrf.exempt(dialect.blueprint)  # API paths check it themselves, for cookies alone
    if has_commands:
        register_commands(app)
    install_heartbeats(app)
    install_relay(app)
    if settings.trusted_proxies:
        hops = settings.trusted_proxies
        app.wsgi_app = ProxyFix(app.wsgi_app, hops, hops, hops)  # type: ignore[method-assign]
    return app


def _configure(app: Flask, settings: Settings) -> None:
    app.config.update(
        SECRET_KEY=settings.secret_key,
        SQLALCHEMY_DATABASE_URI=settings.database_url,
        SQLALCHEMY_ENGINE_OPTIONS=engine_options(settings.database_url),
        MAX_CONTENT_LENGTH=settings.max_upload_bytes,
        MAX_FORM_MEMORY_SIZE=settings.max_json_bytes,
        MAX_FORM_PARTS=100,
        SESSION_COOKIE_NAME="weft",
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Lax",
        SESSION_COOKIE_SECURE=settings.secure_cookies,
        PERMANENT_SESSION_LIFETIME=timedelta(days=30),
        WTF_CSRF_TIME_LIMIT=None,
        WTF_CSRF_CHECK_DEFAULT=False,
    )
    app.session_interface = _Sessions()
    app.url_map.strict_slashes = False
    app.url_map.converters["int"] = IntegerConverter
    app.json.sort_keys = False  # type: ignore[attr-defined]


def _init_extensions(app: Flask) -> None:
    db.init_app(app)
    with app.app_context():
        install_rules(db.engine)
    login_manager.init_app(app)
    csrf.init_app(app)
    htmx.init_app(app)
