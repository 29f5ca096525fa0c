"""All settings, from the environment (`MUSICLAB_*`) or a `.env` file in the working directory."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

PROJECT = Path(__file__).resolve().parent.parent


class Settings(BaseSettings):
    """One attribute a setting; the README's table has the same names and defaults."""

    model_config = SettingsConfigDict(env_prefix="MUSICLAB_", env_file=".env", extra="ignore")

    checkpoints: Path = Field(
        PROJECT / "checkpoints",
        description="folder of best_model.pt and the official codec weights",
    )
    model_store: Path = Field(PROJECT / "model_store", description="folder of the built archives")
    run_dir: Path = Field(
        PROJECT / "run", description="folder for what servers write: keys, logs, temporary files"
    )
    inference_port: int = Field(8080, description="TorchServe's port for predictions")
    management_port: int = Field(8081, description="TorchServe's port for model management")
    metrics_port: int = Field(8082, description="TorchServe's port for Prometheus")
    grpc_inference_port: int = Field(7070, description="TorchServe's gRPC port for predictions")
    grpc_management_port: int = Field(7071, description="TorchServe's gRPC port for management")
