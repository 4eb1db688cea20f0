"""Postgres, Redis and the API's socket: addresses and URLs, outages, Postgres' clock."""
