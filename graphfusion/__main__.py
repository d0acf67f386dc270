"""`python -m graphfusion`: the command line."""

import sys

from graphfusion.cli import main

if __name__ == "__main__":  # a worker of the loader, where processes are spawned, imports this module anew
    sys.exit(main())
