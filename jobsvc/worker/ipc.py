"""Frames of bytes between a worker and the process that runs its handlers, over a pair of sockets; and a wakeup socket.

Who selects a channel waits for the wakeup socket, not for messages: so many of them can come for one waking up.
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
_RINGS = 1024

MAX_FRAME = 256 * 1024 * 1024
"""Bytes of the largest frame; a length beyond that means that something else was written to the socket."""


class Channel:
    """One end. Only bytes are received: what they mean, and whether to trust them, is the caller's to decide."""

    def __init__(self, end: socket.socket, wakeup: socket.socket, blocking: bool) -> None:
        end.setblocking(blocking)
        wakeup.setblocking(False)
        self._socket, self._wakeup = end, wakeup
        self._files = {one: _file(one) for one in (end, wakeup)}
        self._incoming, self._outgoing = bytearray(), bytearray()
        self._sending = threading.Lock()
        self._is_hung_up = False
        self.is_closed = False  # by the other end; what it had sent before was received
        self.is_broken = False  # what was received are no frames; nothing more is

    @classmethod
    def pair(cls) -> tuple["Channel", "Channel"]:
        """Both ends: the first never blocks, the second does."""
        ends, bells = socket.socketpair(), socket.socketpair()
        return cls(ends[0], bells[0], blocking=False), cls(ends[1], bells[1], blocking=True)

    def fileno(self) -> int:
        """For `select`: the wakeup socket."""
        return self._wakeup.fileno()

    def close(self) -> None:
        """Hang up, which the other end learns once it has read what was sent."""
        self._socket.close()
        self._wakeup.close()

    def forget(self) -> None:
        """Give this end up in a forked process, as far as the numbers still are those of its own files."""
        for one in (self._socket, self._wakeup):
            if _file(one) == self._files[one]:
                one.close()
            else:  # somebody closed it, and the number may be another file's now
                one.detach()

    def wake(self) -> None:
        """Wake the other end up, if it selects its channel."""
        with contextlib.suppress(OSError):  # it has been rung often enough, or is gone
            self._wakeup.send(b"!")

    def is_intact(self) -> bool:
        """Return False if somebody closed this end's files behind its back, as `os.closerange` does."""
        return all(_file(one) == file for one, file in self._files.items())

    def send(self, frame: bytes) -> None:
        """Send one frame. A blocking end waits until all is sent, the other one keeps the rest for `flush`.

        What doesn't go at once rings, since somebody has to make room for it.
        """
        with self._sending:
            self._outgoing += _LENGTH.pack(len(frame))
            self._outgoing += frame
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
        is_in_pieces = False
        try:
            while self._outgoing:
                del self._outgoing[: self._socket.send(self._outgoing[:_PIECE])]
                if self._outgoing or is_in_pieces:  # also for the last piece: the other end may have read all before it
                    is_in_pieces = True
                    self.wake()
        except BlockingIOError:
            pass
        except OSError:  # nobody reads it any more, which `receive` finds out
            self._outgoing.clear()

    def receive(self) -> list[bytes]:
        """The frames that have come; a blocking end waits for one, or until the other end has hung up."""
        frames: list[bytes] = []
        try:
            self._is_hung_up = not self._wakeup.recv(_RINGS)
        except BlockingIOError:
            pass
        except OSError:  # its last ring was never heard
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
