"""`python -m natsproc_cli`, for a natsproc that starts another."""

import sys

from natsproc_cli.main import main

if __name__ == "__main__":
    sys.exit(main())
