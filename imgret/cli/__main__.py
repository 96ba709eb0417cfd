"""`python -m imgret.cli` is the command line, too."""

import sys

from imgret.cli import main

if __name__ == "__main__":
    sys.exit(main())
