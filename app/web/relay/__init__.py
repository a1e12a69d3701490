"""The relay: requests of workers reach engines behind NAT over the agents' own connections."""

from __future__ import annotations

from app.web.relay.hub import RelayHub, install_relay, relay_hub

__all__ = ["RelayHub", "install_relay", "relay_hub"]
