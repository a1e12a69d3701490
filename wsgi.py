"""The WSGI application, for gunicorn and `flask`."""

from __future__ import annotations

import sys

from app.factory import create_app

app = create_app(has_commands="gunicorn.arbiter" not in sys.modules)
