"""Messages between a worker and the process that runs its handlers, over a pair of sockets; and a bell.

Who selects a channel waits for the bell, not for messages: so many of them can come for one waking up.
"""

import contextlib
import pickle
import select
import socket
import struct
import threading
from typing import Any

_LENGTH = struct.Struct(">I")
_CHUNK = 256 * 1024
_PIECE = 64 * 1024
_RINGS = 1024


class Channel:
    """One end. What is sent are plain objects, pickled: both ends are the same program, and trust each other."""

    def __init__(self, end: socket.socket, bell: socket.socket, blocking: bool) -> None:
        end.setblocking(blocking)
        bell.setblocking(False)
        self._socket, self._bell = end, bell
        self._incoming, self._outgoing = bytearray(), bytearray()
        self._sending = threading.Lock()
        self._is_hung_up = False
        self.is_closed = False  # by the other end; what it had sent before was received

    @classmethod
    def pair(cls) -> tuple["Channel", "Channel"]:
        """Both ends: the first never blocks, the second does."""
        ends, bells = socket.socketpair(), socket.socketpair()
        return cls(ends[0], bells[0], blocking=False), cls(ends[1], bells[1], blocking=True)

    def fileno(self) -> int:
        """For `select`: the bell."""
        return self._bell.fileno()

    def close(self) -> None:
        """Hang up, which the other end learns once it has read what was sent."""
        self._socket.close()
        self._bell.close()

    def ring(self) -> None:
        """Wake the other end up, if it selects its channel."""
        with contextlib.suppress(OSError):  # it has been rung often enough, or is gone
            self._bell.send(b"!")

    def send(self, message: Any) -> None:
        """Send one message. A blocking end waits until all is sent, the other one keeps the rest for `flush`.

        What doesn't go at once rings, since somebody has to make room for it.
        """
        data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
        with self._sending:
            self._outgoing += _LENGTH.pack(len(data)) + data
            self._write()

    def flush(self) -> bool:
        """Send on what didn't fit before; returns whether there is still something left."""
        with self._sending:
            self._write()
        return bool(self._outgoing)

    def has_room(self) -> bool:
        """Return True if the other end has read most of what was sent, so that more would not wait for long."""
        poll = select.poll()
        poll.register(self._socket, select.POLLOUT)
        return bool(poll.poll(0))

    def _write(self) -> None:
        try:
            while self._outgoing:
                del self._outgoing[: self._socket.send(self._outgoing[:_PIECE])]
                if self._outgoing:
                    self.ring()
        except BlockingIOError:
            pass
        except OSError:  # nobody reads it any more, which `receive` finds out
            self._outgoing.clear()

    def receive(self) -> list[Any]:
        """The messages that have come; a blocking end waits for one, or until the other end has hung up."""
        messages: list[Any] = []
        try:
            self._is_hung_up = not self._bell.recv(_RINGS)
        except BlockingIOError:
            pass
        except OSError:  # its last ring was never heard
            self._is_hung_up = True
        while not messages and not self.is_closed:
            try:
                chunk = self._socket.recv(_CHUNK)
            except BlockingIOError:
                self.is_closed = self._is_hung_up
                break
            except OSError:
                chunk = b""
            self.is_closed = not chunk
            self._incoming += chunk
            messages += self._whole_ones()
        return messages

    def _whole_ones(self) -> list[Any]:
        messages, at, size = [], 0, _LENGTH.size
        with memoryview(self._incoming) as view:
            while len(view) >= at + size and len(view) >= at + size + (length := _LENGTH.unpack_from(view, at)[0]):
                messages.append(pickle.loads(view[at + size : at + size + length]))  # noqa: S301  # our own
                at += size + length
        del self._incoming[:at]
        return messages
