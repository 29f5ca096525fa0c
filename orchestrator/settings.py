"""All settings, from the environment (`MUSICLAB_*`) or a `.env` file in the working directory."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from orchestrator.errors import SettingsError

PROJECT = Path(__file__).resolve().parent.parent
PREFIX = "MUSICLAB_"

Port = Annotated[int, Field(ge=1, le=65535)]


class Settings(BaseSettings):
    """One attribute a setting; the README's table has the same names and defaults."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_file=".env", extra="ignore")

    checkpoints: Path = PROJECT / "checkpoints"
    """Folder of best_model.pt and the official codec weights."""

    model_store: Path = PROJECT / "model_store"
    """Folder of the built archives."""

    run_dir: Path = PROJECT / "run"
    """Folder for what servers write: keys, logs, temporary files."""

    cache: Path = PROJECT / "cache"
    """Folder of the jobs' files."""

    api_host: str = "127.0.0.1"
    """Address that the API listens on; 0.0.0.0 for all."""

    api_port: Port = 8001
    """Port of the API."""

    cors_origins: str = "http://localhost:3000"
    """Origins whose pages may call the API, separated by commas."""

    max_track_mb: Annotated[int, Field(ge=1)] = 50
    """Largest uploaded track, in MiB."""

    concurrency: Annotated[int, Field(ge=1)] = 8
    """Jobs at work at once; twice the model's batch size lets conversion overlap generation."""

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
    def model_server_dir(self) -> Path:
        """TorchServe's working directory."""
        return self.run_dir.resolve() / "model-server"

    @property
    def key_file(self) -> Path:
        """Where TorchServe writes its keys."""
        return self.model_server_dir / "key_file.json"


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
