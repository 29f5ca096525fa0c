"""The `musiclab` command."""

import asyncio
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import structlog
import typer
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from orchestrator.archives.archive import MODEL_NAME, import_archive, read_manifest
from orchestrator.archives.packing import fetch_codec
from orchestrator.archives.packing_inputs import choose_inputs
from orchestrator.cli import model_commands
from orchestrator.cli.console import err, exit_on_error, out, print_error, print_rows
from orchestrator.cli.doctor import diagnose
from orchestrator.client import MusicLabClient, Status
from orchestrator.errors import ApiError, ModelServerError, MusicLabError
from orchestrator.observability.logs import configure_logging, logs_json
from orchestrator.releases.desired_state import DesiredStateFile
from orchestrator.releases.supervisor import Supervisor
from orchestrator.serve import serve, serve_api, serve_orchestrator, serve_worker
from orchestrator.serving.management import RegisteredVersion
from orchestrator.serving.process import TorchServe
from orchestrator.serving.status import ModelStatus
from orchestrator.settings import Settings, load_settings

CLEANUP_PATIENCE_S = 5.0
RECORD_EVERY = 4  # process checks per check of the loaded versions, which takes two requests

app = typer.Typer(
    no_args_is_help=True, help="Generate sixteen seconds of new music from two tracks."
)
codec = typer.Typer(no_args_is_help=True, help="Manage EnCodec's weights.")
app.add_typer(model_commands.app, name="model")
app.add_typer(codec, name="codec")
log = structlog.get_logger()


@contextmanager
def serving_command() -> Iterator[Settings]:
    """Yields the settings of a serving command; configures logging and reports fatal errors."""
    with exit_on_error():
        settings = load_settings()
        configure_logging(settings)
    with exit_on_error(log.critical if logs_json(settings) else print_error):
        yield settings


@codec.command("fetch")
def codec_fetch() -> None:
    """Download EnCodec's official weights into checkpoints/ and verify them."""
    with exit_on_error():
        typer.echo(fetch_codec(load_settings()))


@app.command("up")
def up() -> None:
    """Run everything until Ctrl-C: the API with its worker, and the model in TorchServe."""
    with serving_command() as settings:
        server = TorchServe(settings, *_deployed_or_packed_archives(settings))
        address = f"http://localhost:{settings.api_port}"

        def announce(status: ModelStatus) -> None:
            print_rows(
                {
                    "MusicLab": address,
                    "API": f"{address}/docs",
                    "model": f"{status.version} on {status.device}",
                    "files": settings.cache.resolve(),
                    "logs": server.folder / "logs",
                }.items()
            )
            _warn_about_starter_weights(server)
            out.print("Ready. Press Ctrl-C to stop.")

        out.print("starting TorchServe and loading the model ...")
        asyncio.run(serve(settings, server, announce))
        out.print("stopped")


@app.command("orchestrator")
def orchestrator() -> None:
    """Run the API with its worker until Ctrl-C; `musiclab serve-model` serves the model."""
    with serving_command() as settings:
        asyncio.run(serve_orchestrator(settings, _ready_printer("API", settings.api_port)))
        out.print("stopped")


@app.command("api")
def api() -> None:
    """Run only the API until Ctrl-C; `musiclab worker` runs the jobs. Requires PostgreSQL."""
    with serving_command() as settings:
        asyncio.run(serve_api(settings, _ready_printer("API", settings.api_port)))
        out.print("stopped")


@app.command("worker")
def worker() -> None:
    """Run jobs with the TorchServe on this machine until Ctrl-C. Requires PostgreSQL."""
    with serving_command() as settings:
        asyncio.run(serve_worker(settings, _ready_printer("worker", settings.worker_port)))
        out.print("stopped")


def _ready_printer(name: str, port: int) -> Callable[[], None]:
    def announce() -> None:
        print_rows([(name, f"http://localhost:{port}/health")])
        out.print("Ready. Press Ctrl-C to stop.")

    return announce


@app.command("generate")
def generate(
    track1: Annotated[Path, typer.Argument(help="First audio file.", exists=True, dir_okay=False)],
    track2: Annotated[Path, typer.Argument(help="Second audio file.", exists=True, dir_okay=False)],
    start1: Annotated[float, typer.Option(help="Start of track 1's window, in seconds.")] = 0.0,
    start2: Annotated[float, typer.Option(help="Start of track 2's window, in seconds.")] = 0.0,
    end1: Annotated[
        float | None, typer.Option(help="End of track 1's window.", show_default="start + 16 s")
    ] = None,
    end2: Annotated[
        float | None, typer.Option(help="End of track 2's window.", show_default="start + 16 s")
    ] = None,
    model_version: Annotated[
        str | None, typer.Option(help="Model version.", show_default="the default version")
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="WAV file to write.")] = Path(
        "generated_music.wav"
    ),
    url: Annotated[
        str | None, typer.Option(help="Base URL of MusicLab.", show_default="this machine")
    ] = None,
    api_key: Annotated[
        str | None,
        typer.Option(envvar="MUSICLAB_API_KEY", help="API key, if MusicLab requires one."),
    ] = None,
) -> None:
    """Generate music from two files with a running MusicLab. Ctrl-C cancels the job."""
    with exit_on_error():
        if not output.parent.is_dir():
            raise MusicLabError(f"--output {output}: the directory {output.parent} does not exist")
        address = url or f"http://localhost:{load_settings().api_port}"
        client = MusicLabClient(address, api_key)
        # Fails at once if the service is unreachable or rejects the key.
        replace(client, patience_s=0).models()
        job_id = client.submit(
            track1,
            track2,
            start1=start1,
            start2=start2,
            end1=end1,
            end2=end2,
            model_version=model_version,
        )
        try:
            _wait_with_progress(client, job_id)
            output.write_bytes(client.download(job_id))
        finally:
            # Best effort: the service deletes the job after its retention time anyway.
            with suppress(ApiError):
                replace(client, patience_s=CLEANUP_PATIENCE_S).cancel(job_id)
        typer.echo(output)


def _wait_with_progress(client: MusicLabClient, job_id: str) -> None:
    columns = (BarColumn(), TaskProgressColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=err, transient=True) as progress:
        bar = progress.add_task("", total=100)

        def show(status: Status) -> None:
            position = (
                "" if status.queue_position is None else f", position {status.queue_position}"
            )
            progress.update(
                bar, completed=status.progress, description=escape(status.message + position)
            )

        client.wait(job_id, show)


@app.command("doctor")
def doctor() -> None:
    """Check the requirements on this machine, and show how to install missing ones."""
    with exit_on_error():
        findings = diagnose(load_settings())
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        mark = {"ok": "[green]ok[/green]     ", "note": "[yellow]note[/yellow]   "}.get(
            finding.state, "[red]missing[/red]"
        )
        out.print(f"{mark} {finding.name:<{width}}  {escape(finding.text)}")
    if any(finding.state == "missing" for finding in findings):
        raise typer.Exit(1)


@app.command("serve-model")
def serve_model(
    archive: Annotated[
        Path | None,
        typer.Argument(
            help="A .mar file.",
            show_default="the deployed version, else checkpoints/, packed if something changed",
        ),
    ] = None,
) -> None:
    """Serve the model with TorchServe until Ctrl-C; restart TorchServe if it exits."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    # Python ignores SIGINT if its parent does, as shells do for background processes (`&`).
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with serving_command() as settings:
        archives = (
            _deployed_or_packed_archives(settings)
            if archive is None
            else [import_archive(settings, archive)]
        )
        try:
            with TorchServe(settings, *archives) as server:
                out.print("starting TorchServe and loading the model ...")
                server.wait_ready()
                if archive is not None:
                    DesiredStateFile(settings).set_default(server.manifest["version"])
                _print_addresses(server)
                served = partial(_registered_versions, server)
                Supervisor(server).run(served, RECORD_EVERY)
        except KeyboardInterrupt:
            out.print("stopped")


def _registered_versions(server: TorchServe) -> list[RegisteredVersion] | None:
    """Returns the registered versions; None if TorchServe is unreachable, as in a restart."""
    try:
        return server.management.versions()
    except ModelServerError:
        return None


def _deployed_or_packed_archives(settings: Settings) -> list[Path]:
    """Returns the archives of the desired versions, the default first; else the current archive."""
    state_file = DesiredStateFile(settings)
    inputs = choose_inputs(settings)
    desired = state_file.read()
    archives = state_file.archives(desired)
    if archives:
        fingerprint = read_manifest(archives[0]).get("fingerprint")
        if fingerprint != inputs.fingerprint():
            out.print(
                f"[yellow]Serving {archives[0].name}, which was deployed earlier. The code or "
                "checkpoints/ have changed since; run `musiclab model deploy` to use them.[/yellow]"
            )
        return archives
    if desired is not None:
        out.print(
            f"[yellow]Version {desired.default} was deployed, but its archive is no longer in "
            f"{settings.model_store}; serving the weights in checkpoints/ instead.[/yellow]"
        )
    return [model_commands.current_archive(settings, inputs)]


def _print_addresses(server: TorchServe) -> None:
    settings, manifest = server.settings, server.manifest
    rows = {
        "version": manifest["version"],
        "predictions": f"http://localhost:{settings.inference_port}/predictions/{MODEL_NAME}",
        "management": f"http://localhost:{settings.management_port}/models",
        "metrics": f"http://localhost:{settings.metrics_port}/metrics",
        "keys": server.key_file,
        "logs": server.folder / "logs",
    }
    print_rows(rows.items())
    _warn_about_starter_weights(server)
    out.print("Ready. Press Ctrl-C to stop.")


def _warn_about_starter_weights(server: TorchServe) -> None:
    """Prints a warning if starter weights are served."""
    starters = [
        name
        for name, is_starter in (
            ("codec", server.manifest["codec"]["kind"] == "starter"),
            ("checkpoint", server.manifest["checkpoint"]["starter"]),
        )
        if is_starter
    ]
    if starters == ["codec"]:
        out.print(
            "[yellow]The trained checkpoint is used with the starter codec, on which it was not "
            "trained: expect noise. `musiclab codec fetch` downloads the official codec.[/yellow]"
        )
    elif starters:
        out.print(
            f"[yellow]Using placeholders: the starter {' and the starter '.join(starters)}. "
            "See checkpoints/README.md for how to add real weights.[/yellow]"
        )
