"""The HTTP API: parses a request, calls one function of `jobs`, and returns the response."""
