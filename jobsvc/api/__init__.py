"""The HTTP side: requests in, one call of the domain, answers out."""
