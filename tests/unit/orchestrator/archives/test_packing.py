"""Packing: what an archive holds, what its manifest says, and what is refused."""

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
    """A checkpoint that was trained, as far as one can tell: the starter's without its mark."""
    content = torch.load(starter_settings.checkpoints / "starter" / "best_model.pt")
    del content["musiclab_starter"]
    content |= {"epoch": 7, "val_loss": 0.125, "args": content["args"] | {"lr": 1e-4}}
    path = tmp_path_factory.mktemp("trained") / "trained.pt"
    torch.save(content, path)
    return path


@pytest.fixture(scope="module")
def own_settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Settings whose model store has what `insistent` packs."""
    return settings_in(tmp_path_factory.mktemp("insistent"))


@pytest.fixture(scope="module")
def insistent(own_settings: Settings) -> dict[Device, Path]:
    """An archive for each device; that for a CPU insists on float32 too."""
    return {
        "cpu": pack(own_settings, choose_inputs(own_settings, device="cpu", precision="fp32")),
        "gpu": pack(own_settings, choose_inputs(own_settings, device="gpu")),
    }


def names(archive: Path) -> list[str]:
    with zipfile.ZipFile(archive) as file:
        return file.namelist()


def text_of(archive: Path, name: str) -> str:
    with zipfile.ZipFile(archive) as file:
        return file.read(name).decode()


def test_an_archive_carries_the_code_in_a_folder_of_its_own(starter_archive: Path) -> None:
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


def test_the_manifest_names_the_very_weights(starter_archive: Path) -> None:
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
def test_device_and_precision_go_into_the_archives_configuration(
    insistent: dict[Device, Path], device: Device, precision: str
) -> None:
    config = yaml.safe_load(text_of(insistent[device], "model-config.yaml"))
    tuned = yaml.safe_load((HANDLERS / f"model-config.{device}.yaml").read_text())
    assert config["deviceType"] == device
    assert config["precision"] == precision
    assert read_manifest(insistent[device])["precision"] == precision
    assert tuned["batchSize"] > 1
    assert config["batchSize"] == tuned["batchSize"]
    assert config["minWorkers"] == 1


def test_without_a_device_none_is_insisted_on(starter_archive: Path) -> None:
    assert "deviceType" not in yaml.safe_load(text_of(starter_archive, "model-config.yaml"))


@pytest.mark.parametrize(("found", "device"), [(None, "cpu"), ("/usr/bin/nvidia-smi", "gpu")])
def test_without_a_device_batches_suit_that_of_this_machine(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, found: str | None, device: str
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: found)
    assert choose_inputs(settings).tuned_for == device


def test_starters_are_built_elsewhere_where_checkpoints_may_not_be_written(
    settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()  # nobody can make a folder in it, root neither
    unwritable = settings.model_copy(update={"checkpoints": tmp_path / "file" / "checkpoints"})
    manifest = read_manifest(pack(unwritable, choose_inputs(unwritable)))
    assert manifest["checkpoint"]["starter"]
    assert [file.suffix for file in settings.model_store.iterdir()] == [".mar"]


def test_every_packing_makes_a_new_version(
    own_settings: Settings, insistent: dict[Device, Path]
) -> None:
    again = pack(own_settings, choose_inputs(own_settings, device="gpu"))
    archives = [insistent["gpu"], again]
    versions = [read_manifest(archive)["version"] for archive in archives]
    assert versions[0] != versions[1]
    assert [archive.name for archive in archives] == [f"musiclab-{v}.mar" for v in versions]


def test_a_version_is_never_replaced(starter_settings: Settings, starter_archive: Path) -> None:
    before = starter_archive.read_bytes()
    with pytest.raises(PackError, match="version starter is already at"):
        pack(starter_settings, choose_inputs(starter_settings), version="starter")
    assert starter_archive.read_bytes() == before


@pytest.mark.parametrize("version", ["", " ", "a/b", "../up", "-v", "a:b", "x" * 65])
def test_a_version_that_no_address_can_hold_is_refused(settings: Settings, version: str) -> None:
    with pytest.raises(PackError, match=re.escape(f"--version is {version!r}")):
        pack(settings, choose_inputs(settings), version=version)


def test_a_bad_checkpoint_is_refused_in_the_model_codes_words(
    settings: Settings, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.pt"
    torch.save([1, 2, 3], bad)
    with pytest.raises(PackError, match=r"bad\.pt: holds a list"):
        pack(settings, choose_inputs(settings, checkpoint=bad))
    assert list(settings.model_store.iterdir()) == []


def test_a_checkpoint_for_other_latents_is_refused(settings: Settings) -> None:
    golden = PROJECT / "tests" / "golden" / "cascade.pt"
    with pytest.raises(PackError, match=r"encoding_dim is 32.*has to be 128"):
        pack(settings, choose_inputs(settings, checkpoint=golden))


def test_official_weights_with_the_wrong_hash_are_refused(settings: Settings) -> None:
    settings.checkpoints.mkdir(parents=True)
    (settings.checkpoints / OFFICIAL_CODEC).write_bytes(b"something else")
    with pytest.raises(PackError, match=r"not the official EnCodec file.*start with d7cc33bc"):
        pack(settings, choose_inputs(settings))


def test_ones_own_weights_come_before_the_starter_ones(settings: Settings) -> None:
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


def test_files_that_are_not_there_are_named(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(PackError, match=r"no checkpoint at .*gone\.pt"):
        choose_inputs(settings, checkpoint=tmp_path / "gone.pt")
    with pytest.raises(PackError, match="musiclab codec fetch"):
        choose_inputs(settings, codec="official")


def test_the_fingerprint_follows_code_weights_and_device(
    settings: Settings, trained: Path, changed_code: Callable[[str, str, str], None]
) -> None:
    prints = [
        choose_inputs(settings).fingerprint(),
        choose_inputs(settings, checkpoint=trained).fingerprint(),
        choose_inputs(settings, device="cpu").fingerprint(),
        choose_inputs(settings, precision="fp32").fingerprint(),
    ]
    changed_code("model-config.cpu.yaml", "batchSize: 4", "batchSize: 3")
    prints.append(choose_inputs(settings).fingerprint())
    assert len(set(prints)) == len(prints)


def test_what_was_packed_is_found_until_the_code_changes(
    starter_settings: Settings,
    starter_archive: Path,
    changed_code: Callable[[str, str, str], None],
) -> None:
    (starter_settings.model_store / "musiclab-damaged.mar").write_bytes(b"not a zip file")
    assert find_packed(starter_settings, choose_inputs(starter_settings)) == starter_archive
    changed_code("codec/codec.py", "Finds nothing", "Finds something")
    assert find_packed(starter_settings, choose_inputs(starter_settings)) is None


def test_a_damaged_archive_is_not_started(starter_archive: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.mar"
    content = bytearray(starter_archive.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    with pytest.raises(
        ArchiveError, match=r"damaged\.mar is damaged, at (codec\.th|checkpoint\.pt)"
    ):
        verify_archive(damaged)
    renamed = tmp_path / "renamed.zip"
    renamed.symlink_to(starter_archive)
    with pytest.raises(ArchiveError, match=r"has to be called \.mar"):
        verify_archive(renamed)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_damage_at_any_byte_is_told_as_such(tmp_path: Path, compression: int) -> None:
    archive = small_archive(tmp_path, "v", compression=compression)
    whole = archive.read_bytes()
    manifest = verify_archive(archive)
    told = 0
    for place in range(len(whole)):
        for bit in (1, 1 << 7):
            archive.write_bytes(whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :])
            try:
                assert verify_archive(archive) == manifest
            except ArchiveError as error:
                assert "pack" in str(error)  # what to do
                told += 1
    assert told > len(whole) // 2


def test_manifests_that_disagree_are_refused(tmp_path: Path) -> None:
    for known, explanation in (
        ({"modelName": "musiclab", "modelVersion": "w"}, r"is musiclab w for TorchServe, but"),
        ({"modelName": "other", "modelVersion": "v"}, r"is other v for TorchServe, but"),
        ({"modelName": "musiclab", "modelVersion": 1.0}, r"is musiclab 1.0 for TorchServe, but"),
        ({"modelName": "musiclab"}, r"is damaged \('modelVersion'\)"),
        (["musiclab"], r"is damaged"),
    ):
        archive = small_archive(tmp_path, "v", torchserve=known)
        with pytest.raises(ArchiveError, match=f"{explanation}.*pack it anew"):
            verify_archive(archive)


@pytest.mark.parametrize("manifest", ["[]", "{}", '{"version": "1"}', "no json"])
def test_a_manifest_that_says_too_little_is_refused(tmp_path: Path, manifest: str) -> None:
    archive = tmp_path / "odd.mar"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("musiclab.json", manifest)
    with pytest.raises(ArchiveError, match=r"odd\.mar is not a MusicLab archive"):
        read_manifest(archive)


def test_what_is_not_an_archive_is_refused(tmp_path: Path) -> None:
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
