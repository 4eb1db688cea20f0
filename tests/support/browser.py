"""The browser for tests of pages, and what no page may do in it."""

import contextlib
import re
import shutil
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Dialog, Page, expect, sync_playwright

WATCH = """
document.addEventListener("securitypolicyviolation", event =>
  console.error(`policy: ${event.violatedDirective} ${event.blockedURI} ${event.sample}`));
window.pwned = () => console.error("pwned");
"""
"""Runs before each page's own scripts: what a page's policy refuses, and a script of a job, is an error."""

TOO_WIDE = """
() => {
  const root = document.documentElement;
  if (root.scrollWidth <= root.clientWidth) return [];
  const wide = [...document.querySelectorAll("body *")].filter(one =>
    one.getBoundingClientRect().right > root.clientWidth && !one.closest(".table, pre"));
  return [`${root.scrollWidth - root.clientWidth} px`, ...wide.slice(-3).map(one => one.outerHTML.slice(0, 160))];
}
"""

BLOCKING = ("serious", "critical")
"""The impacts of axe-core's rules that fail a test."""


BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
"""Programs of Chromium, the best first: the headless shell takes half of the CPU time of the others."""


def installed() -> str | None:
    """The path of Chromium, None if there is none."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def chromium() -> str:
    found = installed()
    if found is None:
        pytest.skip("no Chromium is installed")
    return found


@contextlib.contextmanager
def launched() -> Iterator[Browser]:
    """A Chromium without a window."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        yield browser
        browser.close()


class Visitor:
    """People who visit the pages of a service, each in a browser context of their own.

    `faults` are what no page may do: errors in the console, uncaught exceptions, violations of the page's policy,
    dialogs, requests to other hosts. Errors that match a pattern of `expected` are none.
    """

    def __init__(self, browser: Browser, url: str) -> None:
        self.url = url
        self.faults: list[str] = []
        self.expected: list[str] = []
        self._browser = browser
        self._contexts: list[BrowserContext] = []

    def context(self, **options: Any) -> BrowserContext:
        """Return the watched browser context of another person."""
        context = self._browser.new_context(**options)
        context.set_default_timeout(15_000)
        context.add_init_script(WATCH)
        context.on("console", self._on_console)
        context.on("weberror", lambda error: self.faults.append(f"uncaught: {error.error}"))
        context.on("dialog", self._on_dialog)
        context.on("request", lambda request: self._on_request(request.url))
        self._contexts.append(context)
        return context

    def open(self, path: str = "/ui/", **options: Any) -> Page:
        """Return a page of another person, who has opened this path."""
        page = self.context(**options).new_page()
        page.goto(self.url + path)
        return page

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.faults.append(f"console: {message.text} ({message.location.get('url')})")

    def _on_dialog(self, dialog: Dialog) -> None:
        self.faults.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _on_request(self, url: str) -> None:
        if urlsplit(url).netloc != urlsplit(self.url).netloc and not url.startswith(("data:", "blob:")):
            self.faults.append(f"request: {url}")

    def check(self) -> None:
        """Fail if a page has done what none may do."""
        faults = [one for one in self.faults if not any(re.search(pattern, one) for pattern in self.expected)]
        assert not faults, faults

    def close(self) -> None:
        for context in self._contexts:
            context.close()


def confirm(page: Page, is_wanted: bool = True) -> None:
    """Answer the question that the page asks before an action."""
    page.locator("#yes" if is_wanted else "#confirm [value=no]").click()
    expect(page.locator("#confirm")).to_be_hidden()


def inaccessible(page: Page) -> list[str]:
    """Return the serious and critical faults that axe-core finds, each with its elements."""
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE_SCRIPT)
    found = page.evaluate("async () => (await axe.run({resultTypes: ['violations']})).violations")
    return [
        f"{one['id']}: {[node['html'][:160] for node in one['nodes'][:3]]}"
        for one in found
        if one["impact"] in BLOCKING
    ]


def too_wide(page: Page) -> list[str]:
    """Return the elements that reach beyond the window's edge, if the page can be scrolled sideways."""
    return [str(one) for one in page.evaluate(TOO_WIDE)]
