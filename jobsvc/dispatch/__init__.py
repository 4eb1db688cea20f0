"""From Postgres to RQ: the relay and its duties, what RQ holds, and what is removed from it."""
