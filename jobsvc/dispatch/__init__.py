"""Dispatch from Postgres to RQ: the relay and its sweep, RQ's queues and workers, and removal of jobs from RQ."""
