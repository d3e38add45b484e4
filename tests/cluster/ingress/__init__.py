"""A small ingress controller for tests: stands in for the F5 NGINX ingress controller, a real nginx inside.

It is no product. It exists because that controller's image cannot be had without a registry, and behaves
like it where a rolling update or a reload can tell the difference: only ready endpoints, a re-rendered
configuration and an nginx reload for each change, queued changes in one reload, the same defaults, the same
`nginx.org/*` annotations, the same choice between Ingresses that claim one host (the oldest has it, unless
they are a master and its minions), the same TLS (a missing or wrong Secret refuses the handshake). Not there:
VirtualServers, Events and status of the Ingress. Standard library only.

    watch.py   API server → objects      model.py   objects → sites (pure)
    render.py  sites → nginx.conf (pure) server.py  nginx.conf → running nginx
    certificates.py  Secrets → files
"""
