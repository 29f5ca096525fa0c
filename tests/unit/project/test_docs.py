"""README.md and docs/ match the code: settings, endpoints, errors, metrics, commands, packages."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from pydantic_core import PydanticUndefined

from orchestrator.api.routes.root import CONTRACT
from orchestrator.cli import app
from orchestrator.settings import PREFIX, Settings
from tests.support.documentation import (
    DOCS,
    PAGES,
    code_blocks,
    diagram_edges,
    documented_metrics,
    rows,
)
from tests.support.error_codes import api_codes, job_codes, model_codes
from tests.support.project import PROJECT
from tests.unit.project.test_architecture import ALLOWED


def test_every_setting_is_documented_with_its_default() -> None:
    documented = {row[0]: row[1] for row in rows(DOCS / "configuration.md", "Settings")}
    actual = {}
    for name, field in Settings.model_fields.items():
        assert field.default is not PydanticUndefined
        default = str(field.default).removeprefix(f"{PROJECT}/")
        actual[PREFIX + name.upper()] = default
    assert documented == actual


def test_every_endpoint_is_documented() -> None:
    documented = {row[0] for row in rows(DOCS / "api.md", "Endpoints")}
    assert documented == {
        f"{method.upper()} {path}"
        for path, methods in CONTRACT["paths"].items()
        for method in methods
        if method != "parameters"
    }


def test_every_error_code_of_the_api_is_documented_with_its_status() -> None:
    documented = {(row[0], row[1]) for row in rows(DOCS / "errors.md", "API errors")}
    assert documented - EVERYWHERE == set(contract_codes())
    assert {code for code, _ in documented} == api_codes()


def test_every_error_code_of_jobs_is_documented() -> None:
    documented = {row[0] for row in rows(DOCS / "errors.md", "Job errors")}
    assert documented | model_codes() == job_codes()


def test_every_error_code_of_the_model_is_documented() -> None:
    documented = {row[0] for row in rows(DOCS / "errors.md", "Model errors")}
    assert documented == model_codes()
    assert len(documented) > 10


def test_every_metric_of_the_model_is_documented() -> None:
    """Includes those of a GPU, which a server without one does not export.

    tests/integration/observability/test_monitoring.py compares the exported metrics.
    """
    declared = yaml.safe_load((PROJECT / "metrics.yaml").read_text())["model_metrics"]
    assert documented_metrics("Metrics of the model") == {
        metric["name"]: (kind, tuple(sorted(metric["dimensions"])))
        for kind, metrics in declared.items()
        for metric in metrics
        if metric["name"].startswith("musiclab_")
    }


def contract_codes() -> Iterator[tuple[str, str]]:
    """Every error code of the contract and the status that it comes with."""
    for methods in CONTRACT["paths"].values():
        for method, operation in methods.items():
            if method != "parameters":
                for status, response in operation["responses"].items():
                    for code in codes_in(response):
                        yield code, status


def codes_in(response: dict[str, Any]) -> list[str]:
    if "$ref" in response:
        response = CONTRACT["components"]["responses"][response["$ref"].rpartition("/")[2]]
    schema = response.get("content", {}).get("application/json", {}).get("schema", {})
    return [
        code
        for part in schema.get("allOf", ())
        for code in part.get("properties", {}).get("code", {}).get("enum", ())
    ]


# Errors of every path, which the OpenAPI document describes once, in its introduction.
EVERYWHERE = {
    ("not_found", "404"),
    ("method_not_allowed", "405"),
    ("unsupported_content_encoding", "415"),
    ("internal_error", "500"),
}


def test_every_command_is_documented() -> None:
    listed = " ".join(row[0] for row in rows(DOCS / "models.md", "Commands"))
    for command in commands():
        assert f"musiclab {command}" in listed, f"docs/models.md lacks musiclab {command}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_documented_commands_and_options_exist(page: Path) -> None:
    known = commands()
    pattern = r"(?<![\w-])musiclab ((?:model |codec )?[a-z][a-z-]*)((?: [^|&\n]*)?)"
    for name, arguments in re.findall(pattern, code_of(page)):
        assert name in known, f"there is no musiclab {name}"
        options = set(re.findall(r"(?<!\S)--?[a-z][a-z0-9-]*", arguments))
        assert options <= known[name], f"musiclab {name} has no {options - known[name]}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_documented_make_targets_exist(page: Path) -> None:
    makefile = (PROJECT / "Makefile").read_text()
    for target in re.findall(r"^make ([a-z-]+)", code_of(page), flags=re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), f"make {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_documented_code_compiles_and_its_modules_exist(page: Path) -> None:
    for block in code_blocks(page):
        if block.startswith(("from ", "import ")):
            compile(block, page.name, "exec")
        for module in re.findall(r"python -m ([\w.]+)", block):
            path = PROJECT.joinpath(*module.split("."))
            assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module


def test_links_of_the_readme_exist() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", (PROJECT / "README.md").read_text()):
        assert (PROJECT / target).exists(), target


def test_the_diagram_of_packages_shows_the_allowed_imports() -> None:
    allowed = {package: imports for package, imports in ALLOWED.items() if imports}
    assert diagram_edges(DOCS / "architecture.md") == allowed
    documented = {row[0] for row in rows(DOCS / "architecture.md", "Packages")}
    assert documented == ALLOWED.keys()


def code_of(page: Path) -> str:
    """Returns the inline code and the code blocks of a page, each on lines of its own."""
    inline = re.findall(r"`([^`\n]+)`", page.read_text())
    return "\n".join([*inline, *code_blocks(page)])


def commands() -> dict[str, set[str]]:
    """Returns the options of each command, subcommands by their full name."""
    group = typer.main.get_command(app)
    found = {}

    def collect(command: Any, prefix: str) -> None:
        for name, sub in getattr(command, "commands", {}).items():
            if hasattr(sub, "commands"):
                collect(sub, f"{prefix}{name} ")
            else:
                found[prefix + name] = {"--help", *(o for p in sub.params for o in p.opts)}

    collect(group, "")
    return found
