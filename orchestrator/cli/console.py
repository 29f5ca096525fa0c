"""What the `musiclab` command prints, on its two streams."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape

from orchestrator.errors import MusicLabError

out = Console(soft_wrap=True, highlight=False)
err = Console(stderr=True, soft_wrap=True, highlight=False)


def print_error(sentence: str) -> None:
    err.print("[red]error:[/red]", escape(sentence))


@contextmanager
def exit_on_error(report: Callable[[str], object] = print_error) -> Iterator[None]:
    """End the command with exit status 1 and the message of an error that is raised on purpose."""
    try:
        yield
    except MusicLabError as error:
        report(str(error))
        raise typer.Exit(1) from None
    except OSError as error:  # a folder that is not there, may not be written, or is full
        where = f" ({error.filename})" if error.filename else ""
        report(f"{error.strerror or error}{where}")
        raise typer.Exit(1) from None


def print_rows(rows: Iterable[tuple[str, Any]]) -> None:
    """Names and values in two columns, never cut: hashes and paths are for copying."""
    lines = list(rows)
    width = max(len(name) for name, _ in lines)
    for name, value in lines:
        typer.echo(f"{name:<{width}}  {'-' if value is None else value}")
