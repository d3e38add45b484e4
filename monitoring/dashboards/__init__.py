"""The Grafana dashboards: Python that writes the JSON beside it (`make generate`)."""
