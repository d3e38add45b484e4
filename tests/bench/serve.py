"""Starts the servers that have no command line of their own: `serve.py SERVER PORT MODULE:APP`.

Runs on the peers' Python, which has none of the project's packages: standard library only.
Each server keeps its defaults; one process, one thread, as all of these are.
"""

from __future__ import annotations

import importlib
import sys
import warnings


def main() -> None:
    server, port, app = sys.argv[1:]
    module, _, name = app.partition(":")
    warnings.simplefilter("ignore")  # fastwsgi imports pkg_resources
    run = importlib.import_module(server).run
    run(getattr(importlib.import_module(module), name), host="127.0.0.1", port=int(port))


if __name__ == "__main__":
    main()
