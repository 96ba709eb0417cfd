"""`python -m imgret` is the command line."""

import sys

from imgret.cli import main

if __name__ == "__main__":
    sys.exit(main())
