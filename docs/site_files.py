"""A hook of MkDocs: adds the files outside docs/ that pages link to, such as README.md, and rewrites links to them.

In the repository links are relative to the file that they stand in, so a forge follows them. In the site docs/ is the
root, and other files have their path in the repository.
"""

import os
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
DECISIONS = DOCS / "decisions"
LINK = re.compile(r"(?<=\]\()[^)\s#]+")
"""The target of a Markdown link or image, without its anchor."""

HTML_LINK = re.compile(r'(?<=\ssrc=")[^"]+|(?<=\ssrcset=")[^"]+')
"""The file of a picture in HTML."""


def on_config(config: Any) -> None:
    """Put the decision records into the navigation."""
    names = sorted(path.name for path in DECISIONS.glob("[0-9]*.md"))
    config.nav.append({"Decisions": ["decisions/README.md", *(f"decisions/{name}" for name in names)]})


def on_files(files: Files, config: Any) -> None:
    """Add the pages of the repository's root, and every file that a page links to."""
    sources = [*DOCS.rglob("*.md"), *ROOT.glob("*.md")]
    for path in ROOT.glob("*.md"):
        files.append(_file(path, config))
    while sources:
        source = sources.pop()
        text = source.read_text()
        for link in (*LINK.findall(text), *HTML_LINK.findall(text)):
            path = (source.parent / link).resolve()
            if path.is_file() and path.is_relative_to(ROOT) and files.get_file_from_path(_uri(path)) is None:
                files.append(_file(path, config))
                if path.suffix == ".md":
                    sources.append(path)


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Rewrite the links of a page to the paths that their targets have in the site."""
    folder = Path(page.file.abs_src_path).parent

    def rewrite(link: re.Match[str], here: str) -> str:
        path = (folder / link[0]).resolve()
        if path == DECISIONS:
            path = DECISIONS / "README.md"
        if not path.is_file() or not path.is_relative_to(ROOT):
            return link[0]
        return os.path.relpath(_uri(path), here or ".")

    # MkDocs turns the paths of Markdown links into those of pages, and does not change HTML.
    text = HTML_LINK.sub(lambda link: rewrite(link, page.file.url), markdown)
    return LINK.sub(lambda link: rewrite(link, os.path.dirname(page.file.src_uri)), text)


def _file(path: Path, config: Any) -> File:
    return File.generated(config, _uri(path), abs_src_path=str(path))


def _uri(path: Path) -> str:
    return path.relative_to(DOCS if path.is_relative_to(DOCS) else ROOT).as_posix()
