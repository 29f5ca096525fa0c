"""A rollback restores the previous version, and can be repeated while one is left."""

import pytest

from orchestrator.archives.archive import archive_path
from orchestrator.errors import DeploymentError
from orchestrator.releases.desired_state import DesiredState
from tests.support.deployments import assert_versions, deployer_for, write
from tests.support.quick_torchserve import QuickTorchServe


def test_each_rollback_goes_back_one_more_version(torchserve: QuickTorchServe) -> None:
    for version in ("b", "c"):
        deployer_for(torchserve).deploy(version)
    assert_versions(torchserve, "c", set(), DesiredState("c", previous=("a", "b")))
    deployer_for(torchserve).rollback()
    assert_versions(torchserve, "b", set(), DesiredState("b", previous=("a",)))
    deployer_for(torchserve).rollback()
    assert_versions(torchserve, "a", set(), DesiredState("a"))
    with pytest.raises(DeploymentError, match="no version to roll back to"):
        deployer_for(torchserve).rollback()
    assert_versions(torchserve, "a", set(), DesiredState("a"))


def test_a_rollback_skips_missing_archives(torchserve: QuickTorchServe) -> None:
    torchserve.serve("c")
    write(torchserve, DesiredState("c", previous=("a", "b")))
    archive_path(torchserve.settings.model_store, "b").unlink()
    deployer_for(torchserve).rollback()
    assert_versions(torchserve, "a", set(), DesiredState("a", previous=("b",)))
    with pytest.raises(DeploymentError, match="no earlier default version has an archive in"):
        deployer_for(torchserve).rollback()


def test_a_failed_rollback_can_be_repeated(torchserve: QuickTorchServe) -> None:
    torchserve.serve("b")
    write(torchserve, DesiredState("b", previous=("a",)))
    torchserve.at["predict"] = lambda: (503, b"")
    with pytest.raises(DeploymentError, match="503"):
        deployer_for(torchserve).rollback()
    assert_versions(torchserve, "b", set(), DesiredState("b", previous=("a",)))
    torchserve.at.clear()
    deployer_for(torchserve).rollback()
    assert_versions(torchserve, "a", set(), DesiredState("a"))


@pytest.mark.parametrize(("current", "restored"), [("c", "b"), ("a", "b")])
def test_a_rollback_starts_from_a_default_that_was_set_manually(
    torchserve: QuickTorchServe, current: str, restored: str
) -> None:
    write(torchserve, DesiredState("b", previous=("a",)))
    torchserve.serve(current, *{"a", "b", "c"} - {current})  # not recorded yet
    deployer_for(torchserve).rollback()
    assert torchserve.default == restored
    assert current not in torchserve.ready
