"""Limits the memory held for clients, in total and per address."""


class Budget:
    """Bytes held for clients. Not thread-safe: use it on the event loop only.

    One address gets at most half, so that others get some, too. An address that holds nothing is granted any size,
    even beyond the total.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._held = 0
        self._by_address: dict[str, int] = {}

    @property
    def held(self) -> int:
        """Number of bytes held now."""
        return self._held

    def take(self, address: str, size: int) -> bool:
        """Hold `size` more bytes for this address. Returns False, and holds none, if that exceeds a limit."""
        mine = self._by_address.get(address, 0)
        if mine and (self._held + size > self._total or mine + size > self._total // 2):
            return False
        self._held += size
        self._by_address[address] = mine + size
        return True

    def give_back(self, address: str, size: int) -> None:
        """Release `size` bytes of this address."""
        self._held -= size
        left = self._by_address.get(address, 0) - size
        if left > 0:
            self._by_address[address] = left
        else:
            self._by_address.pop(address, None)
