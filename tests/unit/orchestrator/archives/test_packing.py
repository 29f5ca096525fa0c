"""Packing: the content of an archive, its manifest, and inputs that are rejected."""

import hashlib
import json
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from orchestrator.archives.archive import read_manifest, verify_archive
from orchestrator.archives.packing import find_packed, pack
from orchestrator.archives.packing_inputs import HANDLERS, OFFICIAL_CODEC, Device, choose_inputs
from orchestrator.errors import ArchiveError, PackError
from orchestrator.settings import Settings
from tests.support.project import PROJECT
from tests.support.quick_torchserve import small_archive
from tests.support.settings import settings_in

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained(
    starter_settings: Settings, starter_archive: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A checkpoint that appears to be trained: the starter checkpoint without its mark."""
    content = torch.load(starter_settings.checkpoints / "starter" / "best_model.pt")
    del content["musiclab_starter"]
    content |= {"epoch": 7, "val_loss": 0.125, "args": content["args"] | {"lr": 1e-4}}
    path = tmp_path_factory.mktemp("trained") / "trained.pt"
    torch.save(content, path)
    return path


@pytest.fixture(scope="module")
def device_settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Settings whose model store contains the archives of `device_archives`."""
    return settings_in(tmp_path_factory.mktemp("device_archives"))


@pytest.fixture(scope="module")
def device_archives(device_settings: Settings) -> dict[Device, Path]:
    """An archive for each device; the one for a CPU also requires float32."""
    return {
        "cpu": pack(
            device_settings, choose_inputs(device_settings, device="cpu", precision="fp32")
        ),
        "gpu": pack(device_settings, choose_inputs(device_settings, device="gpu")),
    }


def names(archive: Path) -> list[str]:
    with zipfile.ZipFile(archive) as file:
        return file.namelist()


def text_of(archive: Path, name: str) -> str:
    with zipfile.ZipFile(archive) as file:
        return file.read(name).decode()


def test_an_archive_contains_the_code_in_its_own_directory(starter_archive: Path) -> None:
    modules = {str(file.relative_to(PROJECT)) for file in (PROJECT / "handlers").rglob("*.py")}
    modules.remove("handlers/musiclab_handler.py")
    assert set(names(starter_archive)) == modules | {
        "musiclab_handler.py",
        "model-config.yaml",
        "musiclab.json",
        "checkpoint.pt",
        "codec.th",
        "MAR-INF/MANIFEST.json",
    }
    manifest = json.loads(text_of(starter_archive, "MAR-INF/MANIFEST.json"))["model"]
    assert (manifest["modelName"], manifest["modelVersion"]) == ("musiclab", "starter")


def test_the_manifest_has_the_hashes_of_the_packed_weights(starter_archive: Path) -> None:
    manifest = read_manifest(starter_archive)
    with zipfile.ZipFile(starter_archive) as file:
        for name, part in (("checkpoint.pt", "checkpoint"), ("codec.th", "codec")):
            assert hashlib.sha256(file.read(name)).hexdigest() == manifest[part]["sha256"]
    assert manifest["version"] == "starter"
    assert manifest["codec"]["kind"] == "starter"
    assert manifest["checkpoint"]["starter"] is True
    assert manifest["checkpoint"]["form"] == "cascade"


def test_a_trained_checkpoint_needs_the_official_codec_or_force(
    settings: Settings, trained: Path
) -> None:
    inputs = choose_inputs(settings, checkpoint=trained)
    with pytest.raises(PackError, match=r"trained.*official codec.*--force"):
        pack(settings, inputs)
    assert list(settings.model_store.iterdir()) == []

    archive = pack(settings, inputs, force=True)
    checkpoint = read_manifest(archive)["checkpoint"]
    assert (checkpoint["epoch"], checkpoint["val_loss"]) == (7, 0.125)
    assert checkpoint["args"]["lr"] == 1e-4
    assert checkpoint["starter"] is False


@pytest.mark.parametrize(("device", "precision"), [("cpu", "fp32"), ("gpu", "auto")])
def test_device_and_precision_are_written_to_the_archive_configuration(
    device_archives: dict[Device, Path], device: Device, precision: str
) -> None:
    config = yaml.safe_load(text_of(device_archives[device], "model-config.yaml"))
    tuned = yaml.safe_load((HANDLERS / f"model-config.{device}.yaml").read_text())
    assert config["deviceType"] == device
    assert config["precision"] == precision
    assert read_manifest(device_archives[device])["precision"] == precision
    assert tuned["batchSize"] > 1
    assert config["batchSize"] == tuned["batchSize"]
    assert config["minWorkers"] == 1


def test_no_device_is_required_by_default(starter_archive: Path) -> None:
    assert "deviceType" not in yaml.safe_load(text_of(starter_archive, "model-config.yaml"))


@pytest.mark.parametrize(("found", "device"), [(None, "cpu"), ("/usr/bin/nvidia-smi", "gpu")])
def test_batches_are_tuned_for_this_machine_by_default(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, found: str | None, device: str
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: found)
    assert choose_inputs(settings).tuned_for == device


def test_starter_weights_are_built_elsewhere_if_checkpoints_is_not_writable(
    settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()  # not even root can create a directory in it
    unwritable = settings.model_copy(update={"checkpoints": tmp_path / "file" / "checkpoints"})
    manifest = read_manifest(pack(unwritable, choose_inputs(unwritable)))
    assert manifest["checkpoint"]["starter"]
    assert [file.suffix for file in settings.model_store.iterdir()] == [".mar"]


def test_packing_again_creates_a_new_version(
    device_settings: Settings, device_archives: dict[Device, Path]
) -> None:
    again = pack(device_settings, choose_inputs(device_settings, device="gpu"))
    archives = [device_archives["gpu"], again]
    versions = [read_manifest(archive)["version"] for archive in archives]
    assert versions[0] != versions[1]
    assert [archive.name for archive in archives] == [f"musiclab-{v}.mar" for v in versions]


def test_a_version_is_never_replaced(starter_settings: Settings, starter_archive: Path) -> None:
    before = starter_archive.read_bytes()
    with pytest.raises(PackError, match="version starter already exists at"):
        pack(starter_settings, choose_inputs(starter_settings), version="starter")
    assert starter_archive.read_bytes() == before


@pytest.mark.parametrize("version", ["", " ", "a/b", "../up", "-v", "a:b", "x" * 65])
def test_a_version_that_is_not_valid_in_a_url_is_rejected(settings: Settings, version: str) -> None:
    with pytest.raises(PackError, match=re.escape(f"--version is {version!r}")):
        pack(settings, choose_inputs(settings), version=version)


def test_a_bad_checkpoint_is_rejected_with_the_message_of_the_model_code(
    settings: Settings, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.pt"
    torch.save([1, 2, 3], bad)
    with pytest.raises(PackError, match=r"bad\.pt: contains a list"):
        pack(settings, choose_inputs(settings, checkpoint=bad))
    assert list(settings.model_store.iterdir()) == []


def test_a_checkpoint_with_another_latent_size_is_rejected(settings: Settings) -> None:
    golden = PROJECT / "tests" / "golden" / "cascade.pt"
    with pytest.raises(PackError, match=r"encoding_dim is 32.*must be 128"):
        pack(settings, choose_inputs(settings, checkpoint=golden))


def test_official_weights_with_the_wrong_hash_are_rejected(settings: Settings) -> None:
    settings.checkpoints.mkdir(parents=True)
    (settings.checkpoints / OFFICIAL_CODEC).write_bytes(b"something else")
    with pytest.raises(PackError, match=r"not the official EnCodec file.*start with d7cc33bc"):
        pack(settings, choose_inputs(settings))


def test_provided_weights_take_precedence_over_starter_weights(settings: Settings) -> None:
    assert choose_inputs(settings).checkpoint is None
    assert choose_inputs(settings).codec is None
    settings.checkpoints.mkdir(parents=True)
    own = settings.checkpoints / "best_model.pt"
    official = settings.checkpoints / OFFICIAL_CODEC
    own.touch()
    official.touch()
    assert choose_inputs(settings).checkpoint == own
    assert choose_inputs(settings).codec == official
    assert choose_inputs(settings, codec="starter").codec is None


def test_missing_files_are_named(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(PackError, match=r"no checkpoint at .*gone\.pt"):
        choose_inputs(settings, checkpoint=tmp_path / "gone.pt")
    with pytest.raises(PackError, match="musiclab codec fetch"):
        choose_inputs(settings, codec="official")


def test_the_fingerprint_depends_on_code_weights_device_and_precision(
    settings: Settings, trained: Path, changed_code: Callable[[str, str, str], None]
) -> None:
    fingerprints = [
        choose_inputs(settings).fingerprint(),
        choose_inputs(settings, checkpoint=trained).fingerprint(),
        choose_inputs(settings, device="cpu").fingerprint(),
        choose_inputs(settings, precision="fp32").fingerprint(),
    ]
    changed_code("model-config.cpu.yaml", "batchSize: 4", "batchSize: 3")
    fingerprints.append(choose_inputs(settings).fingerprint())
    assert len(set(fingerprints)) == len(fingerprints)


def test_a_packed_archive_is_found_until_the_code_changes(
    starter_settings: Settings,
    starter_archive: Path,
    changed_code: Callable[[str, str, str], None],
) -> None:
    (starter_settings.model_store / "musiclab-damaged.mar").write_bytes(b"not a zip file")
    assert find_packed(starter_settings, choose_inputs(starter_settings)) == starter_archive
    changed_code("codec/codec.py", "import torch\n", "import torch  # changed\n")
    assert find_packed(starter_settings, choose_inputs(starter_settings)) is None


def test_a_damaged_or_misnamed_archive_is_rejected(starter_archive: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.mar"
    content = bytearray(starter_archive.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    with pytest.raises(
        ArchiveError, match=r"damaged\.mar is damaged \((codec\.th|checkpoint\.pt) is corrupt\)"
    ):
        verify_archive(damaged)
    renamed = tmp_path / "renamed.zip"
    renamed.symlink_to(starter_archive)
    with pytest.raises(ArchiveError, match=r"must have the extension \.mar"):
        verify_archive(renamed)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_damage_to_any_byte_is_harmless_or_reported(tmp_path: Path, compression: int) -> None:
    archive = small_archive(tmp_path, "v", compression=compression)
    whole = archive.read_bytes()
    manifest = verify_archive(archive)
    reported = 0
    for offset in range(len(whole)):
        for bit in (1, 1 << 7):
            archive.write_bytes(whole[:offset] + bytes([whole[offset] ^ bit]) + whole[offset + 1 :])
            try:
                assert verify_archive(archive) == manifest
            except ArchiveError as error:
                assert "pack" in str(error)  # the remedy
                reported += 1
    assert reported > len(whole) // 2


def test_manifests_that_disagree_are_rejected(tmp_path: Path) -> None:
    for torchserve, explanation in (
        (
            {"modelName": "musiclab", "modelVersion": "w"},
            r"is musiclab w according to MAR-INF/MANIFEST\.json, but",
        ),
        (
            {"modelName": "other", "modelVersion": "v"},
            r"is other v according to MAR-INF/MANIFEST\.json, but",
        ),
        (
            {"modelName": "musiclab", "modelVersion": 1.0},
            r"is musiclab 1.0 according to MAR-INF/MANIFEST\.json, but",
        ),
        ({"modelName": "musiclab"}, r"is damaged \('modelVersion'\)"),
        (["musiclab"], r"is damaged"),
    ):
        archive = small_archive(tmp_path, "v", torchserve=torchserve)
        with pytest.raises(ArchiveError, match=f"{explanation}.*pack it again"):
            verify_archive(archive)


@pytest.mark.parametrize("manifest", ["[]", "{}", '{"version": "1"}', "no json"])
def test_an_incomplete_manifest_is_rejected(tmp_path: Path, manifest: str) -> None:
    archive = tmp_path / "odd.mar"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("musiclab.json", manifest)
    with pytest.raises(ArchiveError, match=r"odd\.mar is not a MusicLab archive"):
        read_manifest(archive)


def test_a_file_that_is_not_an_archive_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match=r"no archive at .*gone\.mar"):
        read_manifest(tmp_path / "gone.mar")
    (tmp_path / "text.mar").write_text("text")
    with pytest.raises(ArchiveError, match=r"text\.mar is not a MusicLab archive"):
        read_manifest(tmp_path / "text.mar")
    with zipfile.ZipFile(tmp_path / "foreign.mar", "w") as file:
        file.writestr("MAR-INF/MANIFEST.json", "{}")
    with pytest.raises(ArchiveError, match=r"foreign\.mar is not a MusicLab archive"):
        read_manifest(tmp_path / "foreign.mar")
    assert find_packed(settings_in(tmp_path), choose_inputs(settings_in(tmp_path))) is None
