"""Queries of dashboards as Prometheus reads them: Grafana's variables filled in."""

from __future__ import annotations

from collections.abc import Mapping

ANY = {"namespace": ".+", "app": ".+", "datasource": "prometheus"}


def with_values(
    expr: str, values: Mapping[str, str] = ANY, *, window: str = "1m", step: str = "15s"
) -> str:
    """Return a query with each `$name` and `${name}` replaced; `window` for $__rate_interval."""
    known = {**values, "__rate_interval": window, "__interval": step}
    for name, value in known.items():
        expr = expr.replace(f"${{{name}}}", value).replace(f"${name}", value)
    return expr
