"""Which files reload the programs of `jobsvc up`, and when: once two polls find the same."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from jobsvc.devservices import handler_files
from jobsvc.devservices.handler_files import HandlerFiles

Poll = Callable[[], list[str]]


@pytest.fixture
def watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Poll]:
    """A function that polls the files of modules in the current folder, and returns the names of changed ones."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(handler_files, "POLL_SECONDS", 0)

    def watch(*modules: str) -> Poll:
        files = HandlerFiles(modules)
        return lambda: [str(path.relative_to(tmp_path)) for path in files.changed()]

    return watch


def write(path: str, text: str = "") -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text)


def test_module_and_files_beside_it_are_watched(watch: Callable[..., Poll]) -> None:
    write("work.py")
    write("folder/other.py")
    poll = watch("work")
    assert (poll(), poll()) == ([], [])
    write("work.py", "1")
    write("helper.py")
    write("notes.txt")
    write("folder/other.py", "1")
    assert (poll(), poll(), poll()) == ([], ["helper.py", "work.py"], [])


def test_files_of_the_whole_package_are_watched(watch: Callable[..., Poll]) -> None:
    for path in ("shop/__init__.py", "shop/jobs/__init__.py", "shop/jobs/mail.py", "shop/models.py", "beside.py"):
        write(path)
    write("shop/node_modules/tool.py")
    poll = watch("shop.jobs.mail")
    for path in ("shop/jobs/mail.py", "shop/models.py", "beside.py", "shop/node_modules/tool.py"):
        write(path, "1")
    Path("shop/jobs/__init__.py").unlink()
    assert (poll(), poll()) == ([], ["shop/jobs/__init__.py", "shop/jobs/mail.py", "shop/models.py"])


def test_module_in_folder_without_init_is_watched(watch: Callable[..., Poll]) -> None:
    write("examples/shop/handlers.py")
    poll = watch("examples.shop.handlers")
    write("examples/shop/handlers.py", "1")
    assert (poll(), poll()) == ([], ["examples/shop/handlers.py"])


def test_change_is_reported_when_it_is_over(watch: Callable[..., Poll]) -> None:
    write("work.py")
    poll = watch("work")
    for text in ("1", "12", "123"):
        write("work.py", text)
        assert poll() == []
    assert poll() == ["work.py"]


def test_replaced_file_of_the_same_size_is_a_change(watch: Callable[..., Poll]) -> None:
    write("work.py", "1")
    poll = watch("work")
    before = Path("work.py").stat().st_mtime_ns
    while Path("work.py").stat().st_mtime_ns == before:
        write("new.txt", "2")
        Path("new.txt").rename("work.py")
        time.sleep(0.001)
    assert (poll(), poll()) == ([], ["work.py"])


def test_without_modules_nothing_is_watched(watch: Callable[..., Poll]) -> None:
    poll = watch()
    write("work.py")
    assert (poll(), poll()) == ([], [])
