"""The command line: `flask jobs …`."""
