"""`python -m wsgiapp_cli`: the `wsgiapp` command."""

import sys

from wsgiapp_cli.main import main

if __name__ == "__main__":
    sys.exit(main())
