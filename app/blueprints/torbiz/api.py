"""The torbiz blueprint, before its routes are on it."""

from __future__ import annotations

from flask import Blueprint

from app.web.validation import Api

blueprint = Blueprint("torbiz", __name__)
api = Api(blueprint)
