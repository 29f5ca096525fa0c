"""The compose files match their images, settings and mounts; `make compose-test` runs them."""

import re
from typing import Any

import pytest
import yaml

from orchestrator.api.middleware.access_log import POLLED
from orchestrator.api.routes.frontend import HEADERS, IMMUTABLE
from orchestrator.settings import PREFIX, Settings
from tests.support.project import PROJECT

COMPOSE: dict[str, Any] = yaml.safe_load((PROJECT / "docker-compose.yml").read_text())
GPU: dict[str, Any] = yaml.safe_load((PROJECT / "docker-compose.gpu.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
BUILT = [name for name, service in SERVICES.items() if "build" in service]
# Variables that only the compose files use.
VARIABLES = {"PORT", "PAGE_PORT", "SUBNET", "GRAFANA_PASSWORD", "GRAFANA_URL"}


def dockerfile(service: str) -> str:
    name: str = SERVICES[service]["build"]["dockerfile"]
    return (PROJECT / name).read_text()


def test_only_two_ports_of_nginx_are_published() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {
        "nginx": ["${MUSICLAB_PAGE_PORT:-3000}:3000", "${MUSICLAB_PORT:-8001}:8001"]
    }


def test_only_nginx_is_in_an_external_network() -> None:
    inside = {name for name, network in COMPOSE["networks"].items() if network}
    assert all(COMPOSE["networks"][name]["internal"] for name in inside)
    external = [name for name, service in SERVICES.items() if set(service["networks"]) - inside]
    assert external == ["nginx"]
    assert not set(SERVICES["nginx"]["networks"]) & set(SERVICES["torchserve"]["networks"])


@pytest.mark.parametrize("service", SERVICES)
def test_every_service_has_a_health_check_and_restarts_without_capabilities(service: str) -> None:
    assert SERVICES[service]["healthcheck"]["test"][0] == "CMD"
    assert SERVICES[service]["restart"] == "unless-stopped"
    assert SERVICES[service]["cap_drop"] == ["ALL"]


@pytest.mark.parametrize("service", BUILT)
def test_every_image_is_debian_and_runs_as_an_unprivileged_user(service: str) -> None:
    instructions = re.findall("^([A-Z]+) (.*)", dockerfile(service), re.MULTILINE)
    bases = [of.partition(" AS ")[0] for name, of in instructions if name == "FROM"]
    assert set(bases) == {"debian:bookworm-slim"}
    assert [of for name, of in instructions if name == "USER"] == ["musiclab"]
    assert "useradd --uid 10001 " in dockerfile(service), (
        "the services share the volume of the keys"
    )


@pytest.mark.parametrize("service", BUILT)
def test_files_copied_into_an_image_exist_and_are_not_ignored(service: str) -> None:
    ignored, *kept = (PROJECT / ".dockerignore").read_text().split("*\n", 1)[1].splitlines()
    assert ignored.startswith("!")
    allowed = {line.removeprefix("!") for line in [ignored, *kept]}
    for files in re.findall(r"^COPY (?!--from=)(.*) \S+$", dockerfile(service), re.MULTILINE):
        for name in files.split():
            assert (PROJECT / name).exists()
            assert name.split("/")[0] in allowed, f".dockerignore excludes {name}"


def test_nginx_serves_the_page_with_the_same_headers_as_the_api() -> None:
    config = (PROJECT / "deploy" / "nginx.conf").read_text()
    page = config.partition("location = /index.html {")[2].partition("}")[0]
    sent = dict(re.findall(r'add_header (\S+) "?([^";]+)"? always;', page))
    assert sent == HEADERS
    assert f'Cache-Control "{IMMUTABLE}"' in config


def test_nginx_hides_internal_routes() -> None:
    config = (PROJECT / "deploy" / "nginx.conf").read_text()
    hidden = re.findall(
        r"location = (\S+) {\s+default_type application/json;\s+return 404 ", config
    )
    assert hidden == ["/metrics", "/in-flight"]
    (unlogged,) = re.findall(r'"~(\S+)" 0;', config)
    assert all(re.match(unlogged, route) for route in POLLED)


def test_mounted_files_exist() -> None:
    mounted = [
        volume.split(":")[0]
        for service in SERVICES.values()
        for volume in service.get("volumes", ())
    ]
    for source in mounted:
        if source.startswith("./"):
            assert (PROJECT / source).exists()
        else:
            assert source in COMPOSE["volumes"]


def test_every_setting_in_the_compose_files_exists() -> None:
    settings = {PREFIX + name.upper() for name in Settings.model_fields}
    for file in ("docker-compose.yml", "docker-compose.gpu.yml"):
        named = set(re.findall(rf"{PREFIX}[A-Z_]+", (PROJECT / file).read_text()))
        assert named - {PREFIX + name for name in VARIABLES} <= settings


def test_the_limits_of_the_api_can_be_set_in_the_environment() -> None:
    passed = set(SERVICES["orchestrator"]["environment"])
    limits = {
        name
        for name in Settings.model_fields
        if name.startswith(("max_", "keep_", "min_", "rate_"))
    }
    assert {PREFIX + name.upper() for name in limits | {"api_keys", "cors_origins"}} <= passed


def test_all_installations_use_the_same_torch_and_encodec() -> None:
    texts = {
        name: (PROJECT / name).read_text()
        for name in (
            "Makefile",
            "docs/quickstart.md",
            "deploy/torchserve.Dockerfile",
            "docker-compose.gpu.yml",
            "orchestrator/archives/model_packages.py",
        )
    }
    assert len({frozenset(re.findall(r"torch==[\d.]+", text)) for text in texts.values()}) == 1
    for name in ("docs/quickstart.md", "orchestrator/archives/model_packages.py", "pyproject.toml"):
        assert set(re.findall(r"encodec==[\d.]+", (PROJECT / name).read_text())) == {
            "encodec==0.1.1"
        }
    for name in ("Makefile", "deploy/torchserve.Dockerfile"):
        assert "requirements/encodec.txt" in texts[name]


def test_only_torchserve_uses_the_gpu() -> None:
    assert list(GPU["services"]) == ["torchserve"]
    (device,) = GPU["services"]["torchserve"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]
