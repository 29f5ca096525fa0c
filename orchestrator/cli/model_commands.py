"""`musiclab model`: packs, lists and deploys model versions."""

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from orchestrator.archives import packing
from orchestrator.archives.archive import archive_path, read_manifest
from orchestrator.archives.packing import find_packed
from orchestrator.archives.packing_inputs import (
    ArchiveInputs,
    CodecKind,
    Device,
    Precision,
    choose_inputs,
)
from orchestrator.cli.console import exit_on_error, out, print_rows
from orchestrator.errors import MusicLabError
from orchestrator.releases import listing
from orchestrator.releases.deployer import Deployer
from orchestrator.settings import Settings, load_settings

app = typer.Typer(no_args_is_help=True, help="Build, list and deploy model versions.")


@app.command("pack")
def pack(
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="Checkpoint file.", show_default="best_model.pt, else the starter"),
    ] = None,
    codec_kind: Annotated[
        CodecKind | None,
        typer.Option("--codec", help="EnCodec weights.", show_default="official if available"),
    ] = None,
    version: Annotated[
        str | None,
        typer.Option(help="Name of the version.", show_default="generated from the time"),
    ] = None,
    device: Annotated[
        Device | None, typer.Option(help="Required device.", show_default="a GPU if available")
    ] = None,
    precision: Annotated[
        Precision, typer.Option(help="Numeric precision; auto selects bf16 if supported natively.")
    ] = "auto",
    force: Annotated[
        bool, typer.Option("--force", help="Allow a trained checkpoint with the starter codec.")
    ] = False,
) -> None:
    """Build model_store/musiclab-<version>.mar, and print its path."""
    with exit_on_error():
        settings = load_settings()
        inputs = choose_inputs(settings, checkpoint, codec_kind, device, precision)
        typer.echo(packing.pack(settings, inputs, version, force))


@app.command("inspect")
def inspect(
    archive: Annotated[
        str, typer.Argument(metavar="VERSION", help="A version in the model store, or a .mar file.")
    ],
) -> None:
    """Show the manifest of an archive."""
    with exit_on_error():
        path = Path(archive)
        if path.suffix != ".mar":
            path = archive_path(load_settings().model_store, archive)
        manifest = read_manifest(path)
    print_rows(_flatten(manifest))


@app.command("list")
def list_versions() -> None:
    """Show the versions in the model store, and which of them are loaded."""
    with exit_on_error():
        settings = load_settings()
        found = listing.list_versions(settings)
    table = Table(box=None, pad_edge=False)
    for name in listing.COLUMNS:
        table.add_column(name, no_wrap=True)
    for row in found.rows:
        table.add_row(*row)
    out.print(table)
    for remark in found.remarks:
        out.print(f"[yellow]{escape(remark)}[/yellow]")


@app.command("deploy")
def deploy(
    version: Annotated[
        str | None,
        typer.Argument(
            help="A version in the model store.",
            show_default="the current code and checkpoints/, packed if something changed",
        ),
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Pack this checkpoint file and deploy it.")
    ] = None,
    keep_old: Annotated[
        bool, typer.Option("--keep-old", help="Keep the old version loaded, too.")
    ] = False,
) -> None:
    """Make a version the default without interrupting jobs, once it has passed a canary job.

    If it does not load or fails the canary job, the previous version stays the default.
    """
    with exit_on_error():
        settings = load_settings()
        if version is None:
            inputs = choose_inputs(settings, checkpoint)
            archive = current_archive(settings, inputs)
            version = read_manifest(archive)["version"]
        elif checkpoint is not None:
            raise MusicLabError("specify either a version or a --checkpoint to pack, not both")
        _interruptible_deployer().deploy(version, keep_old)


@app.command("rollback")
def rollback() -> None:
    """Make the previous default version the default again."""
    with exit_on_error():
        _interruptible_deployer().rollback()


@app.command("remove")
def remove(
    version: Annotated[str, typer.Argument(help="A version that is not the default.")],
    keep_archive: Annotated[bool, typer.Option("--keep-archive", help="Only unload it.")] = False,
) -> None:
    """Unload a version once no job uses it, and delete its archive."""
    with exit_on_error():
        _interruptible_deployer().remove(version, keep_archive)


def _interruptible_deployer() -> Deployer:
    """Returns a deployer that undoes its unfinished steps on SIGINT, SIGTERM and SIGHUP."""
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def interrupt(*_: object) -> None:
        for each in signals:
            signal.signal(each, signal.SIG_IGN)  # a second signal must not interrupt the undo steps
        raise KeyboardInterrupt

    for each in signals:
        signal.signal(each, interrupt)
    return Deployer(load_settings(), _print_with_time())


def _print_with_time() -> Callable[[str], None]:
    """Returns a function that prints text, preceded by the seconds elapsed since this call."""
    began = time.monotonic()
    return lambda text: typer.echo(f"{time.monotonic() - began:6.1f} s  {text}")


def current_archive(settings: Settings, inputs: ArchiveInputs) -> Path:
    """Returns the archive of the current code and these inputs; packs it if the store has none."""
    archive = find_packed(settings, inputs)
    if archive is None:
        out.print("packing an archive of the weights and the current code ...")
        archive = packing.pack(settings, inputs)
    return archive


def _flatten(manifest: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields a manifest as rows; nested names are joined with dots."""
    for name, value in manifest.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
