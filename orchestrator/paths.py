"""Locations of MusicLab's own files, and the default directories for data.

In a checkout, all of them are in the checkout. In an installed wheel, MusicLab's own files are in
the package's `bundle` directory, and data is in the platform's directories for data and state.
"""

from dataclasses import dataclass
from pathlib import Path

from platformdirs import PlatformDirs

PACKAGE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Paths:
    """MusicLab's own files, and the default directories for its data.

    Attributes:
        handlers: directory of the model code, which is packed into archives.
        config_properties: TorchServe's settings.
        logging_config: TorchServe's log4j2.xml.
        metrics_config: definitions of the metrics that TorchServe exports.
        page: directory of the built page.
        checkpoints: directory of the weights.
        model_store: directory of the archives.
        cache: directory of the jobs' files.
        run: directory of keys, logs, temporary files and the SQLite database.
        is_checkout: whether the paths are in a checkout.
    """

    handlers: Path
    config_properties: Path
    logging_config: Path
    metrics_config: Path
    page: Path
    checkpoints: Path
    model_store: Path
    cache: Path
    run: Path
    is_checkout: bool


def checkout_paths(root: Path) -> Paths:
    """Returns the paths in a checkout."""
    return Paths(
        handlers=root / "handlers",
        config_properties=root / "config.properties",
        logging_config=root / "log4j2.xml",
        metrics_config=root / "metrics.yaml",
        page=root / "frontend" / "dist",
        checkpoints=root / "checkpoints",
        model_store=root / "model_store",
        cache=root / "cache",
        run=root / "run",
        is_checkout=True,
    )


def installed_paths(bundle: Path, platform: PlatformDirs) -> Paths:
    """Returns the paths of an installed wheel.

    The jobs' files are state, like the job table that refers to them. A platform's cache directory
    may be cleared at any time, and the uploads of queued jobs cannot be recreated.
    """
    return Paths(
        handlers=bundle / "handlers",
        config_properties=bundle / "config.properties",
        logging_config=bundle / "log4j2.xml",
        metrics_config=bundle / "metrics.yaml",
        page=bundle / "page",
        checkpoints=platform.user_data_path / "checkpoints",
        model_store=platform.user_data_path / "model_store",
        cache=platform.user_state_path / "cache",
        run=platform.user_state_path / "run",
        is_checkout=False,
    )


def find_paths(package: Path) -> Paths:
    """Returns the paths for the `orchestrator` package in this directory."""
    bundle = package / "bundle"
    if bundle.is_dir():
        return installed_paths(bundle, PlatformDirs("musiclab", appauthor=False))
    return checkout_paths(package.parent)


PATHS = find_paths(PACKAGE)
