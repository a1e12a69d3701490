"""The agent: runs on a provider's machine, talks to the hub, looks after engines.

It ships alone, with its own requirements, and imports nothing of the hub.
"""

from __future__ import annotations

VERSION = "0.1.0"
