"""All settings, read from `MUSICLAB_*` environment variables or `.env` in the working directory."""

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
    """All settings, one per attribute; docs/configuration.md lists them with their defaults."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_file=".env", extra="ignore")

    checkpoints: Path = PATHS.checkpoints
    """Directory of best_model.pt and the official codec weights."""

    model_store: Path = PATHS.model_store
    """Directory of the built archives."""

    run_dir: Path = PATHS.run
    """Directory for keys, logs, temporary files and the SQLite database."""

    cache: Path = PATHS.cache
    """Directory of the jobs' files."""

    page: Path = PATHS.page
    """Directory of the built page."""

    database_url: str = ""
    """URL of the PostgreSQL job database; empty to use SQLite in the run directory."""

    files_url: str = ""
    """URL of the S3 bucket for the jobs' files; empty to use the cache directory."""

    api_host: str = "127.0.0.1"
    """Address that the API listens on; 0.0.0.0 for all interfaces."""

    api_port: Port = 8001
    """Port of the API."""

    cors_origins: str = "http://localhost:3000"
    """Comma-separated list of origins whose pages may call the API."""

    worker_host: str = "127.0.0.1"
    """Address that `musiclab worker` listens on for /health, /ready, /metrics and /in-flight."""

    worker_port: Port = 8002
    """Port of `musiclab worker`."""

    api_keys: str = ""
    """Comma-separated API keys for generate, check, cleanup and models; empty for no keys."""

    trusted_proxies: str = ""
    """Comma-separated list of the networks of proxies whose X-Forwarded-For is trusted."""

    rate_limit: Annotated[int, Field(ge=0)] = 10
    """Maximum generate and check requests per client and minute; 0 for no limit."""

    max_queued: Annotated[int, Field(ge=0)] = 100
    """Maximum number of queued jobs; 0 for no limit."""

    max_track_mb: Annotated[int, Field(ge=1)] = 50
    """Maximum size of an uploaded track, in MiB."""

    max_stored_gb: Annotated[float, Field(ge=0)] = 10.0
    """Maximum total size of all jobs' files, in GB; 0 for no limit."""

    min_free_disk_percent: Annotated[float, Field(ge=0, le=100)] = 5.0
    """Minimum percentage of the disk that must stay free."""

    keep_hours: Annotated[float, Field(gt=0)] = 24.0
    """How long a finished job and its music are kept, in hours."""

    reuse_results: bool = True
    """Whether to reuse an earlier result for identical files, windows and model version."""

    grace_s: Annotated[float, Field(ge=0)] = 10.0
    """How long running jobs may continue when the process is shut down, in seconds."""

    log_format: Literal["auto", "console", "json"] = "auto"
    """Log format of server processes; auto is console on a terminal, else json."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Minimum level of logged events; debug adds requests to polled routes such as /health."""

    model_host: str = "127.0.0.1"
    """Host name or address of TorchServe."""

    model_listen_host: str = "127.0.0.1"
    """Address that TorchServe listens on; 0.0.0.0 for all interfaces, only on a private network."""

    config_properties: Path = PATHS.config_properties
    """TorchServe's configuration file."""

    orchestrator_urls: str = ""
    """Comma-separated URLs of orchestrators to query for in-flight requests of a version."""

    inference_port: Port = 8080
    """Port of TorchServe's inference API."""

    management_port: Port = 8081
    """Port of TorchServe's management API."""

    metrics_port: Port = 8082
    """Port of TorchServe's Prometheus metrics."""

    grpc_inference_port: Port = 7070
    """Port of TorchServe's gRPC inference API, which it always binds."""

    grpc_management_port: Port = 7071
    """Port of TorchServe's gRPC management API, which it always binds."""

    @property
    def max_track_bytes(self) -> int:
        return self.max_track_mb * 2**20

    @property
    def max_body_bytes(self) -> int:
        """Maximum size of a request body: two tracks and 1 MiB for the rest of the form."""
        return 2 * self.max_track_bytes + 2**20

    @property
    def max_stored_bytes(self) -> int:
        return round(self.max_stored_gb * 1e9)

    @property
    def api_key_list(self) -> list[str]:
        return _split(self.api_keys)

    @property
    def cors_origin_list(self) -> list[str]:
        return _split(self.cors_origins)

    @property
    def trusted_networks(self) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
        return [ipaddress.ip_network(each) for each in _split(self.trusted_proxies)]

    @field_validator("trusted_proxies")
    @classmethod
    def _check_networks(cls, value: str) -> str:
        for each in _split(value):
            try:
                ipaddress.ip_network(each)
            except ValueError as error:
                raise ValueError(f"{error}; write 10.0.0.0/8 or 192.0.2.7, for example") from None
        return value

    @property
    def orchestrator_url_list(self) -> list[str]:
        """The configured URLs; by default, the API and the worker on this machine."""
        here = (f"http://127.0.0.1:{port}" for port in (self.api_port, self.worker_port))
        return _split(self.orchestrator_urls) or list(here)

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
        """The HTML file of the built page."""
        return self.page / "index.html"

    @property
    def database_file(self) -> Path:
        """The SQLite database file."""
        return self.run_dir.resolve() / "jobs.sqlite"

    @property
    def scratch_dir(self) -> Path:
        """Parent of the scratch directories; each process on this host has its own."""
        return self.run_dir.resolve() / "scratch"

    @property
    def model_server_dir(self) -> Path:
        """TorchServe's working directory."""
        return self.run_dir.resolve() / "model-server"

    @property
    def key_file(self) -> Path:
        """The file to which TorchServe writes its keys."""
        return self.model_server_dir / "key_file.json"


def _split(text: str) -> list[str]:
    return [each.strip() for each in text.split(",") if each.strip()]


def load_settings() -> Settings:
    """Loads the settings of this process.

    Raises:
        SettingsError: a setting is invalid, or two ports are equal.
    """
    try:
        settings = Settings()
    except ValidationError as error:
        fault = error.errors()[0]
        name = PREFIX + str(fault["loc"][0]).upper()
        raise SettingsError(f"{name} is {fault['input']!r}: {fault['msg']}") from None
    used_by: dict[int, str] = {}
    for field in Settings.model_fields:
        if field.endswith("_port"):
            port, name = getattr(settings, field), PREFIX + field.upper()
            if port in used_by:
                raise SettingsError(
                    f"{used_by[port]} and {name} are both {port}; use different ports"
                )
            used_by[port] = name
    return settings
