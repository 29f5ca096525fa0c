"""The README's tables."""

import re

from tests.support.project import PROJECT

README = (PROJECT / "README.md").read_text()


def rows(heading: str) -> list[list[str]]:
    """The cells of the table rows under a heading, without their code marks."""
    _, level, rest = re.split(rf"^(#+) {heading}$", README, maxsplit=1, flags=re.MULTILINE)
    section = re.split(rf"^#{{1,{len(level)}}} ", rest, maxsplit=1, flags=re.MULTILINE)[0]
    return [
        [cell.strip().replace("`", "") for cell in line.strip("|").split(" | ")]
        for line in section.splitlines()
        if line.startswith("| `")
    ]


def documented_metrics(heading: str) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Type and labels, in order of the alphabet, of each metric in the tables under a heading."""
    return {
        name.strip(): (kind, tuple(sorted(labels.replace(",", " ").split())))
        for name, kind, labels, _ in rows(heading)
    }
