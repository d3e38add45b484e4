"""The WsgiApp API: names, types, parsing, schema, digests, and what a WsgiApp becomes in a cluster.

Pure: no network, no clock, no process. Both the operator and the `wsgiapp` command build on it.
"""
