"""The agent: metrics, probes and reload requests next to a running prefork (`prefork agent`)."""
