"""`python -m kerasseg.cli`: the same as the command `kerasseg`."""

from kerasseg.cli.main import main

if __name__ == "__main__":
    main()
