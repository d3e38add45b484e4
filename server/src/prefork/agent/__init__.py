"""The agent: metrics, probes and reload wishes beside a running prefork (`prefork agent`)."""

from prefork.agent.main import main

__all__ = ["main"]
