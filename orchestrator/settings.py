"""All settings, from the environment (`MUSICLAB_*`) or a `.env` file in the working directory."""

import ipaddress
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from orchestrator.errors import SettingsError
from orchestrator.paths import PATHS

PREFIX = "MUSICLAB_"

Port = Annotated[int, Field(ge=1, le=65535)]


class Settings(BaseSettings):
    """One attribute a setting; the README's table has the same names and defaults."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_file=".env", extra="ignore")

    checkpoints: Path = PATHS.checkpoints
    """Folder of best_model.pt and the official codec weights."""

    model_store: Path = PATHS.model_store
    """Folder of the built archives."""

    run_dir: Path = PATHS.run
    """Folder for what servers write: keys, logs, temporary files."""

    cache: Path = PATHS.cache
    """Folder of the jobs' files."""

    page: Path = PATHS.page
    """Folder of the built page."""

    database_url: str = ""
    """PostgreSQL for the jobs; empty for a file in the run folder."""

    files_url: str = ""
    """S3 bucket for the jobs' files; empty for the cache folder."""

    api_host: str = "127.0.0.1"
    """Address that the API listens on; 0.0.0.0 for all."""

    api_port: Port = 8001
    """Port of the API."""

    cors_origins: str = "http://localhost:3000"
    """Origins whose pages may call the API, separated by commas."""

    worker_host: str = "127.0.0.1"
    """Address of `musiclab worker`'s own /health and /metrics."""

    worker_port: Port = 8002
    """Port of the same."""

    api_keys: str = ""
    """Keys of which one is needed to generate, check, clean up and list models; by commas."""

    trusted_proxies: str = ""
    """Networks of proxies whose X-Forwarded-For is believed, separated by commas."""

    rate_limit: Annotated[int, Field(ge=0)] = 10
    """Requests to generate or check that a client may make a minute; 0 for no limit."""

    max_queued: Annotated[int, Field(ge=0)] = 100
    """Jobs that may wait; 0 for no limit."""

    max_track_mb: Annotated[int, Field(ge=1)] = 50
    """Largest uploaded track, in MiB."""

    max_stored_gb: Annotated[float, Field(ge=0)] = 10.0
    """Most that the files of all jobs may take, in GB; 0 for no limit."""

    min_free_disk_percent: Annotated[float, Field(ge=0, le=100)] = 5.0
    """Share of the disk that has to stay free."""

    keep_hours: Annotated[float, Field(gt=0)] = 24.0
    """For how long a finished job and its music are kept, in hours."""

    reuse_results: bool = True
    """Whether the same files, windows and model version give the music made before."""

    grace_s: Annotated[float, Field(ge=0)] = 10.0
    """For how long jobs at work may go on when the process is to end, in seconds."""

    log_format: Literal["auto", "console", "json"] = "auto"
    """How serving processes log; auto is console on a terminal, else json."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """What is logged at least; debug adds the requests of those who ask again and again."""

    model_host: str = "127.0.0.1"
    """Where TorchServe is reached."""

    model_listen_host: str = "127.0.0.1"
    """Address that TorchServe listens on; 0.0.0.0 for all, on a network that is nobody else's."""

    config_properties: Path = PATHS.config_properties
    """TorchServe's own settings."""

    orchestrator_urls: str = ""
    """Orchestrators to ask which requests a version still works on, separated by commas."""

    inference_port: Port = 8080
    """TorchServe's port for predictions."""

    management_port: Port = 8081
    """TorchServe's port for model management."""

    metrics_port: Port = 8082
    """TorchServe's port for Prometheus."""

    grpc_inference_port: Port = 7070
    """TorchServe's gRPC port for predictions, which it always binds."""

    grpc_management_port: Port = 7071
    """TorchServe's gRPC port for management, which it always binds."""

    @property
    def max_track_bytes(self) -> int:
        return self.max_track_mb * 2**20

    @property
    def max_body_bytes(self) -> int:
        """Both tracks, and a MiB for what is around them."""
        return 2 * self.max_track_bytes + 2**20

    @property
    def max_stored_bytes(self) -> int:
        return round(self.max_stored_gb * 1e9)

    @property
    def api_key_list(self) -> list[str]:
        return _listed(self.api_keys)

    @property
    def cors_origin_list(self) -> list[str]:
        return _listed(self.cors_origins)

    @property
    def trusted_networks(self) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
        return [ipaddress.ip_network(each) for each in _listed(self.trusted_proxies)]

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, value: str) -> str:
        for each in _listed(value):
            try:
                ipaddress.ip_network(each)
            except ValueError as error:
                raise ValueError(f"{error}; networks look like 10.0.0.0/8 or 192.0.2.7") from None
        return value

    @property
    def orchestrator_url_list(self) -> list[str]:
        """By default, whatever serves on this machine."""
        here = (f"http://127.0.0.1:{port}" for port in (self.api_port, self.worker_port))
        return _listed(self.orchestrator_urls) or list(here)

    @property
    def inference_url(self) -> str:
        return f"http://{self.model_host}:{self.inference_port}"

    @property
    def management_url(self) -> str:
        return f"http://{self.model_host}:{self.management_port}"

    @property
    def model_metrics_url(self) -> str:
        return f"http://{self.model_host}:{self.metrics_port}/metrics"

    @property
    def page_index(self) -> Path:
        """The built page's HTML."""
        return self.page / "index.html"

    @property
    def database_file(self) -> Path:
        """SQLite's file."""
        return self.run_dir.resolve() / "jobs.sqlite"

    @property
    def scratch_dir(self) -> Path:
        """Where each process of this host has a folder for files that a bucket keeps."""
        return self.run_dir.resolve() / "scratch"

    @property
    def model_server_dir(self) -> Path:
        """TorchServe's working directory."""
        return self.run_dir.resolve() / "model-server"

    @property
    def key_file(self) -> Path:
        """Where TorchServe writes its keys."""
        return self.model_server_dir / "key_file.json"


def _listed(text: str) -> list[str]:
    return [each.strip() for each in text.split(",") if each.strip()]


def load_settings() -> Settings:
    """The settings of this process.

    Raises:
        SettingsError: a value is not what it has to be.
    """
    try:
        settings = Settings()
    except ValidationError as error:
        fault = error.errors()[0]
        name = PREFIX + str(fault["loc"][0]).upper()
        raise SettingsError(f"{name} is {fault['input']!r}: {fault['msg']}") from None
    users: dict[int, str] = {}
    for field in Settings.model_fields:
        if field.endswith("_port"):
            port, name = getattr(settings, field), PREFIX + field.upper()
            if port in users:
                raise SettingsError(f"{users[port]} and {name} are both {port}; each needs its own")
            users[port] = name
    return settings
