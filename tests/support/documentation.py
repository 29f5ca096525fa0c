"""Tables and code blocks of README.md and docs/."""

import re
import textwrap
from pathlib import Path

from tests.support.project import PROJECT

DOCS = PROJECT / "docs"
PAGES = [PROJECT / "README.md", *sorted(DOCS.glob("*.md"))]
METRICS = DOCS / "operations.md"


def rows(page: Path, heading: str) -> list[list[str]]:
    """Returns the cells, without backticks, of the table rows below a heading.

    Only rows whose first cell starts with code are returned.
    """
    pattern = rf"^(#+) {re.escape(heading)}$"
    _, level, rest = re.split(pattern, page.read_text(), maxsplit=1, flags=re.MULTILINE)
    section = re.split(rf"^#{{1,{len(level)}}} ", rest, maxsplit=1, flags=re.MULTILINE)[0]
    return [
        [cell.strip().replace("`", "") for cell in line.strip("|").split(" | ")]
        for line in section.splitlines()
        if line.startswith("| `")
    ]


def documented_metrics(heading: str) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Returns type and sorted labels of each metric in the table below a heading."""
    return {
        name: (kind, tuple(sorted(labels.replace(",", " ").split())))
        for name, kind, labels, _ in rows(METRICS, heading)
    }


def code_blocks(page: Path) -> list[str]:
    """Returns the content of the indented code blocks of a page."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    blocks = re.findall(r"(?:^    .*\n(?:\n(?=    ))?)+", text, flags=re.MULTILINE)
    return [textwrap.dedent(block) for block in blocks]


def code_block(page: Path, containing: str) -> str:
    """Returns the one code block of a page that contains a text."""
    (block,) = [block for block in code_blocks(page) if containing in block]
    return block


def diagram_edges(page: Path) -> dict[str, set[str]]:
    """Returns the targets of the arrows of each node in a page's Mermaid flowchart."""
    arrows = re.findall(r"^ +(\w+) --> ([\w &]+)$", page.read_text(), flags=re.MULTILINE)
    return {source: set(targets.split(" & ")) for source, targets in arrows}
