"""The architecture: allowed dependencies, size limits and declared metrics."""

import ast
import warnings
from collections import defaultdict
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
HANDLERS = sorted((ROOT / "handlers").rglob("*.py"))
ORCHESTRATOR = sorted((ROOT / "orchestrator").rglob("*.py"))
PYTHON = sorted(
    path
    for folder in ("benchmarks", "handlers", "orchestrator", "tests")
    for path in (ROOT / folder).rglob("*.py")
)
LARGEST_MODULE = 350
LARGEST_FUNCTION = 50

# The allowed dependencies of each package of the orchestrator, in addition to COMMON. They have no
# cycles.
COMMON = {"concurrency", "errors", "filesystem", "observability", "paths", "settings"}
ALLOWED = {
    "cli": {"archives", "audio", "client", "database", "releases", "serve", "serving", "storage"},
    "serve": {"api", "audio", "releases", "serving"},
    "api": {"audio", "database", "jobs", "serving", "storage", "worker"},
    "worker": {"audio", "database", "jobs", "serving", "storage"},
    "releases": {"archives", "audio", "serving"},
    "jobs": {"audio", "database", "storage"},
    "serving": {"archives"},
    "archives": set[str](),
    "audio": set[str](),
    "client": set[str](),
    "database": set[str](),
    "storage": set[str](),
}
# The allowed dependencies within COMMON.
ALLOWED_IN_COMMON = {
    "concurrency": {"errors"},
    "errors": set[str](),
    "filesystem": set[str](),
    "observability": {"settings"},
    "paths": set[str](),
    "settings": {"errors", "paths"},
}
# The allowed dependencies of each package of the model code: packages or top-level modules.
ALLOWED_IN_HANDLERS = {
    "codec": {"errors", "hashing"},
    "model": {"errors", "hashing"},
}
# The only modules that may import these libraries.
IMPORTERS = {
    "alembic": {"orchestrator/database"},
    "fcntl": {"orchestrator/filesystem.py"},
    "multipart": {"orchestrator/api/multipart.py"},
    "obstore": {"orchestrator/storage"},
    "platformdirs": {"orchestrator/paths.py"},
    "sqlalchemy": {"orchestrator/database", "orchestrator/jobs", "orchestrator/worker/fleet.py"},
    "ts": {"handlers/musiclab_handler.py"},
    "typer": {"orchestrator/cli"},
}


def by_name(module: Path) -> str:
    return str(module.relative_to(ROOT))


def imports(module: Path) -> Iterator[str]:
    """The full names of everything a module imports, including inside functions."""
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                assert alias.name not in ("orchestrator", "handlers"), (
                    f"{by_name(module)} imports all of {alias.name}; import only the names it uses"
                )
                yield alias.name
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{by_name(module)} has a relative import; write the full name"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            raise AssertionError(
                f"{by_name(module)} calls import_module; write an import statement"
            )


def packages_of(module: Path) -> set[str]:
    """The top-level names of everything a module imports."""
    return {name.split(".")[0] for name in imports(module)}


def unit_of(module: Path) -> str:
    """The package within the orchestrator or the handlers, or the name of a top-level module."""
    return module.relative_to(ROOT).with_suffix("").parts[1]


def units_of(modules: list[Path], package: str) -> dict[str, set[str]]:
    """For each unit of a package, the other units that its modules import."""
    units: dict[str, set[str]] = defaultdict(set)
    for module in modules:
        own = [name.split(".") for name in imports(module) if name.startswith(f"{package}.")]
        units[unit_of(module)] |= {parts[1] for parts in own} - {unit_of(module)}
    return units


def imported_modules(module: Path) -> set[Path]:
    """The files of this repository that a module imports."""
    files = set()
    for name in imports(module):
        path = ROOT.joinpath(*name.split("."))
        for candidate in (path.with_suffix(".py"), path / "__init__.py", *_candidates(path)):
            if candidate.is_file():
                files.add(candidate)
                break
    return files


def _candidates(path: Path) -> Iterator[Path]:
    """The candidate files for a name imported from a module or a package."""
    yield path.parent.with_suffix(".py")
    yield path.parent / "__init__.py"


def test_modules_and_their_imports_are_found() -> None:
    assert "pipeline.py" in {module.name for module in HANDLERS}
    assert "settings.py" in {module.name for module in ORCHESTRATOR}
    assert {"torch", "handlers"} <= packages_of(ROOT / "handlers" / "pipeline.py")
    assert ROOT / "handlers" / "errors.py" in imported_modules(ROOT / "handlers" / "archive.py")


def test_packages_have_only_allowed_dependencies() -> None:
    allowed = {unit: others | COMMON for unit, others in ALLOWED.items()} | ALLOWED_IN_COMMON
    wrong = {
        unit: sorted(used - allowed.get(unit, set()))
        for unit, used in units_of(ORCHESTRATOR, "orchestrator").items()
        if unit != "__init__" and used - allowed.get(unit, set())
    }
    assert not wrong, f"dependencies that the table does not allow: {wrong}"


def test_the_table_has_every_package_and_no_unused_dependency() -> None:
    units = units_of(ORCHESTRATOR, "orchestrator")
    table = ALLOWED | ALLOWED_IN_COMMON
    assert set(units) - {"__init__"} == set(table)
    assert not units["__init__"], "orchestrator/__init__.py imports something"
    unused = {unit: sorted(others - units[unit]) for unit, others in table.items()}
    assert not any(unused.values()), f"the table allows unused dependencies: {unused}"


def test_allowed_dependencies_have_no_cycles() -> None:
    TopologicalSorter(ALLOWED).prepare()
    TopologicalSorter(ALLOWED_IN_COMMON).prepare()


def test_packages_of_the_model_code_have_only_allowed_dependencies() -> None:
    units = units_of(HANDLERS, "handlers")
    assert {path.parent.name for path in HANDLERS} - {"handlers"} == set(ALLOWED_IN_HANDLERS)
    for unit, allowed in ALLOWED_IN_HANDLERS.items():
        assert units[unit] <= allowed, f"handlers/{unit} depends on {units[unit] - allowed}"


@pytest.mark.parametrize("modules", [HANDLERS, ORCHESTRATOR], ids=["handlers", "orchestrator"])
def test_modules_have_no_import_cycles(modules: list[Path]) -> None:
    # A package's __init__ counts as imported only by modules that import names from it, although
    # Python runs it before each module of the package.
    TopologicalSorter({module: imported_modules(module) for module in modules}).prepare()


@pytest.mark.parametrize("module", HANDLERS, ids=by_name)
def test_handlers_do_not_import_the_orchestrator(module: Path) -> None:
    assert "orchestrator" not in packages_of(module)


@pytest.mark.parametrize("module", ORCHESTRATOR, ids=by_name)
def test_the_orchestrator_does_not_import_handlers(module: Path) -> None:
    assert "handlers" not in packages_of(module)


@pytest.mark.parametrize("library", IMPORTERS)
def test_a_library_is_imported_only_where_allowed(library: str) -> None:
    importing = [
        by_name(module) for module in HANDLERS + ORCHESTRATOR if library in packages_of(module)
    ]
    assert importing, f"nothing imports {library}; remove it from the table"
    allowed_importers = tuple(IMPORTERS[library])
    outside = [name for name in importing if not name.startswith(allowed_importers)]
    assert not outside, f"{library} is imported outside {allowed_importers}: {outside}"


def test_no_module_and_no_function_is_too_long() -> None:
    long = []
    for module in PYTHON:
        text = module.read_text()
        if (lines := text.count("\n")) > LARGEST_MODULE:
            long.append(f"{by_name(module)} has {lines} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or 0) - node.lineno + 1
                if lines > LARGEST_FUNCTION:
                    long.append(f"{by_name(module)}: {node.name} has {lines} lines")
    assert not long, f"at most {LARGEST_MODULE} and {LARGEST_FUNCTION} are allowed; split: {long}"


def test_declared_metrics_match_those_that_the_handler_emits() -> None:
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
    """The worker metrics that metrics.yaml declares, by type."""
    content: dict[str, Any] = yaml.safe_load((ROOT / "metrics.yaml").read_text())
    metrics: dict[str, list[dict[str, Any]]] = content["model_metrics"]
    return metrics
