"""`python -m jobsvc`: the command `jobsvc`."""

from jobsvc.command import main

if __name__ == "__main__":
    main()
