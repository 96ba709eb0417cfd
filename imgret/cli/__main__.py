"""`python -m imgret.cli` runs the command line."""

import sys

from imgret.cli import main

if __name__ == "__main__":
    sys.exit(main())
