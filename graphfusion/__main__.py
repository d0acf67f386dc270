"""`python -m graphfusion`: the command line."""

from graphfusion.cli import main

main()
