"""How much memory clients may hold, in all and for each address."""


class Budget:
    """Bytes that are held for clients. Of the event loop alone.

    One address gets at most half, so that it leaves something to others; but always as much as one request takes
    while it holds nothing.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._held = 0
        self._by_address: dict[str, int] = {}

    @property
    def held(self) -> int:
        """The bytes held now."""
        return self._held

    def take(self, address: str, size: int) -> bool:
        """Hold so many bytes more for this address; False, and nothing is held, if that is too much."""
        mine = self._by_address.get(address, 0)
        if mine and (self._held + size > self._total or mine + size > self._total // 2):
            return False
        self._held += size
        self._by_address[address] = mine + size
        return True

    def give_back(self, address: str, size: int) -> None:
        """Hold so many bytes less."""
        self._held -= size
        left = self._by_address.get(address, 0) - size
        if left > 0:
            self._by_address[address] = left
        else:
            self._by_address.pop(address, None)
