"""Processes: start, fork, exit, and detection of a dead parent."""
