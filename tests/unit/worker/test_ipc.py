"""Messages between a worker and its child process."""

import contextlib
import select
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from jobsvc.worker.ipc import Channel

Pair = tuple[Channel, Channel]


@pytest.fixture
def ends() -> Iterator[Pair]:
    here, there = Channel.pair()
    with contextlib.closing(here), contextlib.closing(there):
        yield here, there


def is_woken(channel: Channel, seconds: float = 0) -> bool:
    return bool(select.select([channel], [], [], seconds)[0])


def test_messages_arrive_complete_and_in_order(ends: Pair) -> None:
    here, there = ends
    for number in range(3):
        there.send(b"%d" % number * 20_000 * number)
    got = []
    while len(got) < 3:
        got += here.receive()
    assert got == [b"%d" % number * 20_000 * number for number in range(3)]
    assert here.receive() == []
    there.send(b"the next one")
    assert here.receive() == [b"the next one"]


def test_only_a_wakeup_is_selected(ends: Pair) -> None:
    here, there = ends
    there.send(b"something")
    assert not is_woken(here)
    there.wake()
    there.wake()
    assert is_woken(here, 5)
    assert here.receive() == [b"something"]
    assert not is_woken(here)  # one read takes all wakeups


def test_unread_wakeup_blocks_nothing(ends: Pair) -> None:
    _here, there = ends
    for _ in range(100_000):
        there.wake()


def test_closed_end_is_noticed_after_its_messages(ends: Pair) -> None:
    here, there = ends
    there.send(b"last message")
    there.close()
    assert is_woken(here, 5)
    assert (here.receive(), here.is_closed) == ([b"last message"], False)
    assert (here.receive(), here.is_closed) == ([], True)


def test_closed_end_is_noticed_by_the_wakeup_socket_alone(ends: Pair) -> None:
    """As when a process that a handler started keeps the other end open."""
    here, there = ends
    there.send(b"last message")
    there._wakeup.close()
    assert is_woken(here, 5)
    assert here.receive() == [b"last message"]
    assert (here.receive(), here.is_closed) == ([], True)


def test_receiver_waits_for_a_message(ends: Pair) -> None:
    here, there = ends
    with ThreadPoolExecutor(1) as pool:
        receiving = pool.submit(there.receive)
        with pytest.raises(TimeoutError):
            receiving.result(0.2)
        here.send(b"work")
        assert receiving.result(5) == [b"work"]
    here.close()
    assert (there.receive(), there.is_closed) == ([], True)


def test_unread_wakeup_is_no_error(ends: Pair) -> None:
    """The peer died; its messages are read all the same, and then the end is noticed."""
    here, there = ends
    there.wake()
    here.send(b"work")
    here.close()
    assert there.receive() == [b"work"]
    assert (there.receive(), there.is_closed) == ([], True)


def test_unsent_message_causes_a_wakeup(ends: Pair) -> None:
    here, there = ends
    sending = threading.Thread(target=there.send, args=(b"x" * 2_000_000,))
    sending.start()
    got: list[bytes] = []
    while not got:
        assert is_woken(here, 5)
        got += here.receive()
    sending.join()
    assert got == [b"x" * 2_000_000]
