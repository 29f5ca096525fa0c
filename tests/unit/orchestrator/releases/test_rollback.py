"""A rollback goes back to the version before, as often as there is one."""

import pytest

from orchestrator.archives.archive import archive_path
from orchestrator.errors import DeploymentError
from orchestrator.releases.desired_state import DesiredState
from tests.support.deployments import assert_serves, deploying, write
from tests.support.quick_torchserve import QuickTorchServe


def test_each_rollback_goes_further_back(served: QuickTorchServe) -> None:
    for version in ("b", "c"):
        deploying(served).deploy(version)
    assert_serves(served, "c", set(), DesiredState("c", previous=("a", "b")))
    deploying(served).rollback()
    assert_serves(served, "b", set(), DesiredState("b", previous=("a",)))
    deploying(served).rollback()
    assert_serves(served, "a", set(), DesiredState("a"))
    with pytest.raises(DeploymentError, match="no version to go back to"):
        deploying(served).rollback()
    assert_serves(served, "a", set(), DesiredState("a"))


def test_a_rollback_passes_over_archives_that_are_gone(served: QuickTorchServe) -> None:
    served.serve("c")
    write(served, DesiredState("c", previous=("a", "b")))
    archive_path(served.settings.model_store, "b").unlink()
    deploying(served).rollback()
    assert_serves(served, "a", set(), DesiredState("a", previous=("b",)))
    with pytest.raises(DeploymentError, match="their archives are no longer in"):
        deploying(served).rollback()


def test_a_rollback_that_fails_can_be_repeated(served: QuickTorchServe) -> None:
    served.serve("b")
    write(served, DesiredState("b", previous=("a",)))
    served.at["predict"] = lambda: (503, b"")
    with pytest.raises(DeploymentError, match="503"):
        deploying(served).rollback()
    assert_serves(served, "b", set(), DesiredState("b", previous=("a",)))
    served.at.clear()
    deploying(served).rollback()
    assert_serves(served, "a", set(), DesiredState("a"))


@pytest.mark.parametrize(("chosen", "back"), [("c", "b"), ("a", "b")])
def test_a_rollback_goes_back_from_what_was_chosen_by_hand(
    served: QuickTorchServe, chosen: str, back: str
) -> None:
    write(served, DesiredState("b", previous=("a",)))
    served.serve(chosen, *{"a", "b", "c"} - {chosen})  # not noted yet
    deploying(served).rollback()
    assert served.default == back
    assert chosen not in served.ready
