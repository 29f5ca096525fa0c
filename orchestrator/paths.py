"""Where MusicLab's own files are, and the folders that data goes to unless settings say otherwise.

In a checkout all of them are in the checkout. In an installed wheel its own files are in the
package's `bundle` folder, and data goes where the platform expects it.
"""

from dataclasses import dataclass
from pathlib import Path

from platformdirs import PlatformDirs

PACKAGE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Paths:
    """MusicLab's own files, and the default folders of its data.

    Attributes:
        handlers: the code of the model, which is packed into archives.
        config_properties: TorchServe's settings.
        logging_config: TorchServe's log4j2.xml.
        metrics_config: the metrics that TorchServe exports.
        page: folder of the built page.
        checkpoints: folder of the weights.
        model_store: folder of the archives.
        cache: folder of the jobs' files.
        run: folder of keys, logs, temporary files and the job table.
        is_checkout: whether they are in a checkout.
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
    """The paths in a checkout."""
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
    """The paths of an installed wheel.

    The jobs' files are state, like the table of jobs that they belong to: a platform's folder for
    caches may be emptied at any time, and uploads of waiting jobs cannot be made again.
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
    """The paths of the `orchestrator` package in this folder."""
    bundle = package / "bundle"
    if bundle.is_dir():
        return installed_paths(bundle, PlatformDirs("musiclab", appauthor=False))
    return checkout_paths(package.parent)


PATHS = find_paths(PACKAGE)
