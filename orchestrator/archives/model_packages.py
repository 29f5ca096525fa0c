"""The Python packages required to pack and serve the model."""

from importlib.util import find_spec

from orchestrator.errors import ModelPackagesMissingError
from orchestrator.paths import PATHS

MODEL_PACKAGES = ("torch", "encodec", "ts", "model_archiver", "soundfile")
CHECKOUT_INSTRUCTIONS = "run `make setup`"
# The user chooses the build of torch. --no-deps skips encodec's torchaudio, which is never used.
WHEEL_INSTRUCTIONS = (
    "install the build of torch==2.13.0 for this machine, then run `pip install 'musiclab[model]'` "
    "and `pip install --no-deps encodec==0.1.1`"
)


def missing_packages() -> list[str]:
    """Returns the MODEL_PACKAGES that are not installed in this environment."""
    return [name for name in MODEL_PACKAGES if find_spec(name) is None]


def how_to_install() -> str:
    """Returns instructions to install missing packages."""
    return CHECKOUT_INSTRUCTIONS if PATHS.is_checkout else WHEEL_INSTRUCTIONS


def require_packages() -> None:
    """Checks that all packages are installed.

    Raises:
        ModelPackagesMissingError: names the missing packages and how to install them.
    """
    if missing := missing_packages():
        raise ModelPackagesMissingError(
            f"the model needs packages that are not installed here: {', '.join(missing)}; "
            f"{how_to_install()}"
        )
