"""Operator for WsgiApp, and the `wsgiapp` command."""
