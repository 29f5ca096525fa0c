"""Output of the `musiclab` command to stdout and stderr."""

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
    """On a MusicLabError or OSError, prints its message and exits with status 1."""
    try:
        yield
    except MusicLabError as error:
        report(str(error))
        raise typer.Exit(1) from None
    except OSError as error:  # such as a missing, read-only or full directory
        where = f" ({error.filename})" if error.filename else ""
        report(f"{error.strerror or error}{where}")
        raise typer.Exit(1) from None


def print_rows(rows: Iterable[tuple[str, Any]]) -> None:
    """Prints names and values in two columns; never truncates hashes or paths."""
    lines = list(rows)
    width = max(len(name) for name, _ in lines)
    for name, value in lines:
        typer.echo(f"{name:<{width}}  {'-' if value is None else value}")
