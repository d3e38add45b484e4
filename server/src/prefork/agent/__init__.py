"""The agent: metrics, probes and reload wishes next to a running prefork (`prefork agent`)."""
