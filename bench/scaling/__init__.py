"""How far one Postgres goes: `python -m bench.scaling`. The figures of docs/scaling.md come from it."""
