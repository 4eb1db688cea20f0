"""Limits the memory used for clients, in total and per address."""


class Budget:
    """Bytes used for clients. Not thread-safe: use it on the event loop only.

    One address gets at most half, so that others get some, too. The first bytes of an address
    are granted in any number, since one response may be larger than the budget.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._used = 0
        self._by_address: dict[str, int] = {}

    def take(self, address: str, size: int) -> bool:
        """Add `size` bytes to this address. Returns False, and adds none, if that exceeds a limit."""
        mine = self._by_address.get(address, 0)
        if mine and (self._used + size > self._total or mine + size > self._total // 2):
            return False
        self._used += size
        self._by_address[address] = mine + size
        return True

    def give_back(self, address: str, size: int) -> None:
        """Subtract `size` bytes from this address."""
        self._used -= size
        left = self._by_address.get(address, 0) - size
        if left > 0:
            self._by_address[address] = left
        else:
            self._by_address.pop(address, None)
