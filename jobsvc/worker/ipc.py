"""Frames of bytes between a worker and its child process over a socket pair, plus a wake-up socket.

`select()` waits on the wake-up socket, not on the data, so that one wake-up can cover many messages.
"""

import contextlib
import os
import select
import socket
import struct
import threading

_LENGTH = struct.Struct(">I")
_CHUNK = 256 * 1024
_PIECE = 64 * 1024
_WAKEUPS = 1024

MAX_FRAME = 256 * 1024 * 1024
"""Bytes of the largest frame; a larger length means that something else was written to the socket."""


class Channel:
    """One end of a channel. It transfers bytes; the caller decodes and validates them."""

    def __init__(self, end: socket.socket, wakeup: socket.socket, blocking: bool) -> None:
        end.setblocking(blocking)
        wakeup.setblocking(False)
        self._socket, self._wakeup = end, wakeup
        self._files = {one: _file(one) for one in (end, wakeup)}
        self._incoming, self._outgoing = bytearray(), bytearray()
        self._sending = threading.Lock()
        self._is_hung_up = False
        self.is_closed = False  # by the other end; all that it had sent was received
        self.is_broken = False  # received something else than frames; receives no more

    @classmethod
    def pair(cls) -> tuple["Channel", "Channel"]:
        """Return both ends: the first is non-blocking, the second blocking."""
        ends, wakeups = socket.socketpair(), socket.socketpair()
        return cls(ends[0], wakeups[0], blocking=False), cls(ends[1], wakeups[1], blocking=True)

    def fileno(self) -> int:
        """Return the descriptor of the wake-up socket, for `select`."""
        return self._wakeup.fileno()

    def close(self) -> None:
        """Close this end; the other end detects that once it has read what was sent."""
        self._socket.close()
        self._wakeup.close()

    def forget(self) -> None:
        """Close this end in a forked process, unless its descriptors now belong to other files."""
        for one in (self._socket, self._wakeup):
            if _file(one) == self._files[one]:
                one.close()
            else:  # it was closed, and the descriptor may be another file's now
                one.detach()

    def wake(self) -> None:
        """Wake up the other end if it selects its channel."""
        with contextlib.suppress(OSError):  # the buffer is full (a wake-up is pending), or the peer has closed
            self._wakeup.send(b"!")

    def is_intact(self) -> bool:
        """Return False if other code closed this end's descriptors, as `os.closerange` does."""
        return all(_file(one) == file for one, file in self._files.items())

    def send(self, frame: bytes) -> None:
        """Send one frame. A blocking end waits until all is sent, the other one keeps the rest for `flush`.

        If it doesn't fit at once, wake up the other end, which has to read to make room for it.
        """
        with self._sending:
            self._outgoing += _LENGTH.pack(len(frame))
            self._outgoing += frame
            self._write()

    def flush(self) -> bool:
        """Send buffered data; returns True if some is left."""
        with self._sending:
            self._write()
        return bool(self._outgoing)

    def has_room(self) -> bool:
        """Return True if the other end has read most of what was sent, so that more can be sent soon."""
        poll = select.poll()
        poll.register(self._socket, select.POLLOUT)
        return bool(poll.poll(0))

    def _write(self) -> None:
        is_in_pieces = False
        try:
            while self._outgoing:
                del self._outgoing[: self._socket.send(self._outgoing[:_PIECE])]
                if self._outgoing or is_in_pieces:  # also after the last one: the other end may have read all before
                    is_in_pieces = True
                    self.wake()
        except BlockingIOError:
            pass
        except OSError:  # the other end is closed, which `receive` detects
            self._outgoing.clear()

    def receive(self) -> list[bytes]:
        """Return the frames received. A blocking end waits for one, or until the other end is closed."""
        frames: list[bytes] = []
        try:
            self._is_hung_up = not self._wakeup.recv(_WAKEUPS)
        except BlockingIOError:
            pass
        except OSError:  # the other end closed before it read our last wake-up
            self._is_hung_up = True
        while not frames and not self.is_closed:
            try:
                chunk = self._socket.recv(_CHUNK)
            except BlockingIOError:
                self.is_closed = self._is_hung_up
                break
            except OSError:
                chunk = b""
            self.is_closed = not chunk
            self._incoming += chunk
            frames += self._whole_ones()
        return frames

    def _whole_ones(self) -> list[bytes]:
        frames, at, size = [], 0, _LENGTH.size
        with memoryview(self._incoming) as view:
            while len(view) >= at + size:
                length = _LENGTH.unpack_from(view, at)[0]
                if length > MAX_FRAME:
                    self.is_broken = self.is_closed = True
                    break
                if len(view) < at + size + length:
                    break
                frames.append(bytes(view[at + size : at + size + length]))
                at += size + length
        del self._incoming[:at]
        return frames


def _file(end: socket.socket) -> tuple[int, int] | None:
    try:
        found = os.fstat(end.fileno())
        return found.st_dev, found.st_ino
    except OSError:
        return None
