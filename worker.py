"""`python worker.py`: a worker, as `make worker` starts it."""

from jobsvc.worker.pool import main

if __name__ == "__main__":
    main()
