"""Files that stand beside the package in a checkout, and inside it when it is installed."""

from pathlib import Path

_PACKAGE = Path(__file__).parent


def migrations() -> Path:
    """Return the folder of the migrations."""
    return _find("migrations", in_checkout="migrations")


def demo() -> Path:
    """Return the shell script of `jobsvc demo`."""
    return _find("demo.sh", in_checkout="examples/demo.sh")


def _find(name: str, in_checkout: str) -> Path:
    installed = _PACKAGE / name
    return installed if installed.exists() else _PACKAGE.parent / in_checkout
