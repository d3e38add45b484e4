"""Entry point of the plain folder: `python3 /prefork …` inside somebody else's image.

The folder holds this file, the package `prefork`, and `agent-site` with what only the agent needs.
Python puts the folder at the head of `sys.path`; it is taken off again as soon as the package is
imported, so that nothing lying here can ever shadow a module of the app.
"""

import os
import sys

FOLDER = os.path.dirname(os.path.abspath(__file__))

if sys.version_info < (3, 11):  # noqa: UP036 - the image that runs this is not ours
    found = ".".join(str(part) for part in sys.version_info[:3])
    sys.exit("prefork: this image has Python " + found + "; prefork needs 3.11 or newer")

sys.path.insert(0, FOLDER)
import prefork.cli  # noqa: E402

sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry or ".") != FOLDER]

if __name__ == "__main__":
    sys.exit(prefork.cli.main())
