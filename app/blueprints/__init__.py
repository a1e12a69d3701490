"""The JSON APIs that Weft speaks, and its dashboard. One folder each."""

from __future__ import annotations

from app.blueprints.agent_api import dialect as agent_dialect
from app.blueprints.aitip import dialect as aitip_dialect
from app.blueprints.dashboard import dialect as dashboard_dialect
from app.blueprints.dualquery import dialect as dualquery_dialect
from app.blueprints.fabric import dialect as fabric_dialect
from app.blueprints.health import dialect as health_dialect
from app.blueprints.openai import dialect as openai_dialect
from app.blueprints.torbiz import dialect as torbiz_dialect
from app.web.dialects import Dialect

# The dashboard stands last: it answers for every path that no API claims.
DIALECTS: tuple[Dialect, ...] = (
    torbiz_dialect,
    fabric_dialect,
    aitip_dialect,
    dualquery_dialect,
    openai_dialect,
    agent_dialect,
    health_dialect,
    dashboard_dialect,
)
