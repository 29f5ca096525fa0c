"""The Python packages that the model needs, to be packed and to be served."""

from importlib.util import find_spec

from orchestrator.errors import ModelPackagesMissingError
from orchestrator.paths import PATHS

MODEL_PACKAGES = ("torch", "encodec", "ts", "model_archiver", "soundfile")
IN_CHECKOUT = "`make setup` installs them"
# Which torch suits the machine is its user's choice; encodec's torchaudio is never used here.
FROM_WHEEL = (
    "install torch==2.13.0 in the build for this machine, `pip install 'musiclab[model]'`, and "
    "`pip install --no-deps encodec==0.1.1`"
)


def missing_packages() -> list[str]:
    """Those of MODEL_PACKAGES that are not installed in this environment."""
    return [name for name in MODEL_PACKAGES if find_spec(name) is None]


def how_to_install() -> str:
    """What to do about missing packages."""
    return IN_CHECKOUT if PATHS.is_checkout else FROM_WHEEL


def require_packages() -> None:
    """Return if all packages are installed.

    Raises:
        ModelPackagesMissingError: some are not; says which, and how to install them.
    """
    if missing := missing_packages():
        raise ModelPackagesMissingError(
            f"the model needs packages that are not installed here: {', '.join(missing)}; "
            f"{how_to_install()}"
        )
