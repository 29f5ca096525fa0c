"""Counts of responses, and contract violations."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass
class Report:
    """The results of a run."""

    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    states: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)

    @property
    def cases(self) -> int:
        return self.statuses.total()

    def count(self, operation: str, *statuses: int) -> int:
        """The number of responses to one operation, limited to these statuses if given."""
        return sum(
            count
            for (name, status), count in self.statuses.items()
            if name == operation and status in (statuses or (status,))
        )

    @property
    def server_errors(self) -> int:
        """The number of 5xx responses, without the intended 501 of chat."""
        return sum(
            count
            for (name, status), count in self.statuses.items()
            if status >= 500 and (name, status) != ("chat", 501)
        )

    def lines(self) -> Iterator[str]:
        yield f"cases                {self.cases}"
        yield f"  to generate        {self.count('generate')}"
        yield f"    accepted (202)   {self.count('generate', 202)}"
        yield f"server errors (5xx)  {self.server_errors}"
        yield f"violations           {len(self.violations)}"
        yield "states seen          " + _counts(self.states)
        for name in sorted({name for name, _ in self.statuses}):
            seen = Counter({str(s): n for (other, s), n in self.statuses.items() if other == name})
            yield f"{name:<20} {_counts(seen)}"


def _counts(seen: Counter[str]) -> str:
    return ", ".join(f"{name}: {count}" for name, count in sorted(seen.items()))
