"""Processes: how they start, fork, end, and notice that their parent has died."""
