"""The servers around jobsvc: how their addresses are written, and when they are unavailable."""
