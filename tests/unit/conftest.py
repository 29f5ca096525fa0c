"""Setup of the unit tests: torch runs one thread, and the starter codec is built once."""

from pathlib import Path

import pytest
import torch

from handlers.codec.codec import Codec, load_codec, save_starter

# Most tests run small models, for which synchronizing threads costs more than it saves.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def starter_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("codec") / "starter.th"
    save_starter(path)
    return path


@pytest.fixture(scope="session")
def starter_codec(starter_file: Path) -> Codec:
    return load_codec(starter_file, "starter")
