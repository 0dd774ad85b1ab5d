"""``python -m fastopt``: the command line."""

import sys

from fastopt.app.cli import main

if __name__ == "__main__":
    sys.exit(main())
