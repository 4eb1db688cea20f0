"""Postgres: connections and sessions, tables, SQL."""
