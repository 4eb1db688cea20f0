"""`python -m tests.shots`, as `make shots` calls it: pictures of the console, of a real run on its own servers."""

import argparse
import signal
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, expect

from tests.shots.scene import Scene
from tests.support.browser import Visitor, installed, launched
from tests.support.launcher import ROOT

FOLDER = ROOT / "docs" / "images"
WIDTH = 1280
MOST_BYTES = 300_000


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was started is ended then, too
    parser = argparse.ArgumentParser(prog="make shots", description=__doc__)
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the pictures (docs/images)")
    out = parser.parse_args().out
    if installed() is None:
        sys.exit("shots: there is no Chromium")
    with tempfile.TemporaryDirectory(prefix="jobsvc-shots-") as folder:
        scene = Scene(Path(folder))
        try:
            print("shots: running the jobs", flush=True)
            scene.play()
            with launched() as browser:
                for theme in ("light", "dark"):
                    take(browser, scene, theme, out)
        finally:
            scene.stop()


def take(browser: Browser, scene: Scene, theme: str, out: Path) -> None:
    """Save the pictures of a theme."""
    visitor = Visitor(browser, scene.url)
    page = visitor.context(color_scheme=theme, device_scale_factor=1.5).new_page()
    for name, path, shown, height in (
        ("overview", "", "CHARGE_CARD", 1060),
        ("job", f"jobs/{scene.imported}", "62 %", 830),
        ("failures", "failures", "CardDeclined", 440),
    ):
        page.set_viewport_size({"width": WIDTH, "height": height})
        page.goto(f"{scene.url}/ui/{path}")
        expect(page.locator("main")).to_contain_text(shown)
        page.wait_for_load_state("networkidle")
        file = out / f"{name}-{theme}.png"
        page.screenshot(path=file, animations="disabled", caret="hide")
        number = file.stat().st_size
        print(f"shots: {file} ({number:,} bytes)", flush=True)
        if number > MOST_BYTES:
            sys.exit(f"shots: {file} has more than {MOST_BYTES:,} bytes")
    visitor.close()
    visitor.check()


if __name__ == "__main__":
    main()
