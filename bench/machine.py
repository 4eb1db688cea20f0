"""The machine and the versions on which the figures were measured."""

import json
import os
import platform
import re
import subprocess
from importlib.metadata import version
from pathlib import Path

import psutil

from bench.environment import ROOT, Environment
from bench.node import NODE

PYTHON_PACKAGES = ("rq", "celery", "dramatiq", "procrastinate", "granian", "flask", "sqlalchemy", "psycopg2-binary")
NODE_PACKAGES = ("bullmq", "express", "ioredis", "pg")


def describe(environment: Environment) -> list[str]:
    """The machine, the servers, and everybody's versions, a line each."""
    [[postgres]] = environment.sql("SELECT current_setting('server_version')")
    settings = {row[0]: row[1] for row in environment.sql("SELECT name, setting FROM pg_settings")}
    server = environment.redis.info("server")
    redis = f"Valkey {server['valkey_version']}" if "valkey_version" in server else f"Redis {server['redis_version']}"
    append = environment.redis.config_get("append*")
    locked = json.loads((ROOT / "bench/node/package-lock.json").read_text())["packages"]
    node = subprocess.run([NODE, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    return [
        f"{os.cpu_count()} cores, {_cpu()}, {psutil.virtual_memory().total / 1e9:.0f} GB, {platform.system()}",
        f"PostgreSQL {postgres}, fsync {settings['fsync']}, synchronous_commit {settings['synchronous_commit']}, "
        f"shared_buffers {int(settings['shared_buffers']) * 8 // 1024} MB",
        f"{redis}, appendonly {append['appendonly']}, appendfsync {append['appendfsync']}",
        f"Python {platform.python_version()}; " + ", ".join(f"{name} {version(name)}" for name in PYTHON_PACKAGES),
        f"Node {node.removeprefix('v')}; "
        + ", ".join(f"{name} {locked[f'node_modules/{name}']['version']}" for name in NODE_PACKAGES),
    ]


def _cpu() -> str:
    found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return found[1].strip() if found else platform.machine()
