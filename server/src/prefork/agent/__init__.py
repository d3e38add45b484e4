"""The agent: metrics, probes and reload wishes beside a running prefork (`prefork agent`)."""

from prefork.agent.app import main

__all__ = ["main"]
