"""`python -m kerasseg`: the same as the command `kerasseg`."""

from kerasseg.cli.main import main

if __name__ == "__main__":  # a process that reads scans imports this file, too
    main()
