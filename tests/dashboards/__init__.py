"""The dashboards on real data: a scenario on the cluster, what Prometheus recorded of it, pictures."""
