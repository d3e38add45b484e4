"""The operator: keeps each WsgiApp of a cluster as it is declared."""
