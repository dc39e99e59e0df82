"""`python -m kerasseg.cli`: the same as the command `kerasseg`."""

from kerasseg.cli.main import main

main()
