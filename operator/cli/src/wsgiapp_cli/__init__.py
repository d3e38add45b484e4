"""The `wsgiapp` command: a WsgiApp manifest without a cluster."""
