"""The rules of the house: who may import whom, and metrics declared as they are emitted."""

import ast
import warnings
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
HANDLERS = sorted((ROOT / "handlers").rglob("*.py"))
ORCHESTRATOR = sorted((ROOT / "orchestrator").rglob("*.py"))


def imported_packages(module: Path) -> set[str]:
    """The top-level names of all imports in a module, those inside functions too."""
    packages: set[str] = set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            packages |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = node.level > 1  # leaves the package, where modules have no folders
            packages.add("." if above else (node.module or "").split(".")[0])
    return packages


def by_name(module: Path) -> str:
    return str(module.relative_to(ROOT))


def test_there_are_modules_to_look_at() -> None:
    assert "pipeline.py" in {module.name for module in HANDLERS}
    assert "settings.py" in {module.name for module in ORCHESTRATOR}
    assert {"torch", "handlers"} <= imported_packages(ROOT / "handlers" / "pipeline.py")


@pytest.mark.parametrize("module", HANDLERS, ids=by_name)
def test_handlers_do_not_import_the_orchestrator(module: Path) -> None:
    assert not {"orchestrator", "."} & imported_packages(module)


@pytest.mark.parametrize("module", ORCHESTRATOR, ids=by_name)
def test_the_orchestrator_does_not_import_handlers(module: Path) -> None:
    assert "handlers" not in imported_packages(module)


def test_one_module_alone_knows_the_model_server() -> None:
    knowing = [by_name(module) for module in HANDLERS if "ts" in imported_packages(module)]
    assert knowing == ["handlers/musiclab_handler.py"]


def test_metrics_are_declared_to_the_server_as_the_handler_emits_them() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # the ts package leaves a file open
        from handlers.musiclab_handler import METRICS

    declared: dict[str, tuple[Any, ...]] = {
        metric["name"]: (metric_type, metric["unit"], metric["dimensions"])
        for metric_type, metrics in declared_metrics().items()
        for metric in metrics
        if metric["name"].startswith("musiclab_")
    }
    assert declared == {
        name: (metric_type.value, unit, labels)
        for name, (metric_type, unit, labels) in METRICS.items()
    }


def declared_metrics() -> dict[str, list[dict[str, Any]]]:
    """The metrics of workers that metrics.yaml declares, by type."""
    content: dict[str, Any] = yaml.safe_load((ROOT / "metrics.yaml").read_text())
    metrics: dict[str, list[dict[str, Any]]] = content["model_metrics"]
    return metrics
