"""The figures of a run by measurement and competitor, one for each round."""

import statistics
from collections import defaultdict


class Results:
    """The measured figures. The name of a figure implies its unit; `report` knows the names."""

    def __init__(self) -> None:
        self._figures: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        self.notes: list[str] = []

    def write(self, figure: str, competitor: str, value: float) -> None:
        """Add a round's value."""
        self._figures[figure][competitor].append(value)

    def has(self, figure: str, *competitors: str) -> bool:
        """Return True if each of these competitors has a value."""
        return all(self._figures.get(figure, {}).get(competitor) for competitor in competitors)

    def figures(self, figure: str) -> dict[str, list[float]]:
        """All rounds of a figure, by competitor."""
        return {name: list(values) for name, values in self._figures.get(figure, {}).items()}

    def median(self, figure: str, competitor: str) -> float:
        """The middle one of a competitor's rounds."""
        return statistics.median(self._figures[figure][competitor])

    def ratio(self, figure: str, one: str, other: str) -> float:
        """The median of the rounds' ratios, since what disturbs a round disturbs both."""
        pairs = zip(self._figures[figure][one], self._figures[figure][other], strict=False)
        return statistics.median(a / b for a, b in pairs)
