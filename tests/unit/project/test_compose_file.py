"""The compose files fit what they start; `make compose-test` starts it, this takes a second."""

import re
from typing import Any

import pytest
import yaml

from orchestrator.api.middleware.access_log import POLLED
from orchestrator.api.routes.frontend import FOR_GOOD, HEADERS
from orchestrator.settings import PREFIX, Settings
from tests.support.project import PROJECT

COMPOSE: dict[str, Any] = yaml.safe_load((PROJECT / "docker-compose.yml").read_text())
GPU: dict[str, Any] = yaml.safe_load((PROJECT / "docker-compose.gpu.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
BUILT = [name for name, service in SERVICES.items() if "build" in service]
# Those of the compose files alone.
VARIABLES = {"PORT", "PAGE_PORT", "SUBNET", "GRAFANA_PASSWORD", "GRAFANA_URL"}


def dockerfile(service: str) -> str:
    name: str = SERVICES[service]["build"]["dockerfile"]
    return (PROJECT / name).read_text()


def test_two_ports_of_nginx_are_published_and_nothing_else() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {
        "nginx": ["${MUSICLAB_PAGE_PORT:-3000}:3000", "${MUSICLAB_PORT:-8001}:8001"]
    }


def test_only_nginx_is_in_a_network_that_leads_out() -> None:
    inside = {name for name, network in COMPOSE["networks"].items() if network}
    assert all(COMPOSE["networks"][name]["internal"] for name in inside)
    leading_out = [name for name, service in SERVICES.items() if set(service["networks"]) - inside]
    assert leading_out == ["nginx"]
    assert not set(SERVICES["nginx"]["networks"]) & set(SERVICES["torchserve"]["networks"])


@pytest.mark.parametrize("service", SERVICES)
def test_every_service_is_looked_after(service: str) -> None:
    assert SERVICES[service]["healthcheck"]["test"][0] == "CMD"
    assert SERVICES[service]["restart"] == "unless-stopped"
    assert SERVICES[service]["cap_drop"] == ["ALL"]


@pytest.mark.parametrize("service", BUILT)
def test_every_image_is_debians_and_runs_as_a_user(service: str) -> None:
    instructions = re.findall("^([A-Z]+) (.*)", dockerfile(service), re.MULTILINE)
    bases = [of.partition(" AS ")[0] for name, of in instructions if name == "FROM"]
    assert set(bases) == {"debian:bookworm-slim"}
    assert [of for name, of in instructions if name == "USER"] == ["musiclab"]
    assert "useradd --uid 10001 " in dockerfile(service), "they share the volume of the keys"


@pytest.mark.parametrize("service", BUILT)
def test_what_is_copied_into_an_image_is_there_and_not_ignored(service: str) -> None:
    ignored, *kept = (PROJECT / ".dockerignore").read_text().split("*\n", 1)[1].splitlines()
    assert ignored.startswith("!")
    allowed = {line.removeprefix("!") for line in [ignored, *kept]}
    for files in re.findall(r"^COPY (?!--from=)(.*) \S+$", dockerfile(service), re.MULTILINE):
        for name in files.split():
            assert (PROJECT / name).exists()
            assert name.split("/")[0] in allowed, f".dockerignore keeps {name} out"


def test_nginx_serves_the_page_with_the_same_headers_as_the_api() -> None:
    config = (PROJECT / "deploy" / "nginx.conf").read_text()
    page = config.partition("location = /index.html {")[2].partition("}")[0]
    sent = dict(re.findall(r'add_header (\S+) "?([^";]+)"? always;', page))
    assert sent == HEADERS
    assert f'Cache-Control "{FOR_GOOD}"' in config


def test_nginx_keeps_to_itself_what_is_not_for_users() -> None:
    config = (PROJECT / "deploy" / "nginx.conf").read_text()
    hidden = re.findall(
        r"location = (\S+) {\s+default_type application/json;\s+return 404 ", config
    )
    assert hidden == ["/metrics", "/in-flight"]
    (unlogged,) = re.findall(r'"~(\S+)" 0;', config)
    assert all(re.match(unlogged, route) for route in POLLED)


def test_files_that_are_mounted_are_there() -> None:
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


def test_every_setting_in_it_exists() -> None:
    settings = {PREFIX + name.upper() for name in Settings.model_fields}
    for file in ("docker-compose.yml", "docker-compose.gpu.yml"):
        named = set(re.findall(rf"{PREFIX}[A-Z_]+", (PROJECT / file).read_text()))
        assert named - {PREFIX + name for name in VARIABLES} <= settings


def test_the_limits_of_the_api_can_be_set_from_outside() -> None:
    given = set(SERVICES["orchestrator"]["environment"])
    limits = {
        name
        for name in Settings.model_fields
        if name.startswith(("max_", "keep_", "min_", "rate_"))
    }
    assert {PREFIX + name.upper() for name in limits | {"api_keys", "cors_origins"}} <= given


def test_all_install_the_same_torch_and_encodec() -> None:
    texts = {
        name: (PROJECT / name).read_text()
        for name in (
            "Makefile",
            "README.md",
            "deploy/torchserve.Dockerfile",
            "docker-compose.gpu.yml",
            "orchestrator/archives/model_packages.py",
        )
    }
    assert len({frozenset(re.findall(r"torch==[\d.]+", text)) for text in texts.values()}) == 1
    for name in ("README.md", "orchestrator/archives/model_packages.py", "pyproject.toml"):
        assert set(re.findall(r"encodec==[\d.]+", (PROJECT / name).read_text())) == {
            "encodec==0.1.1"
        }
    for name in ("Makefile", "deploy/torchserve.Dockerfile"):
        assert "requirements/encodec.txt" in texts[name]


def test_the_gpu_is_the_models() -> None:
    assert list(GPU["services"]) == ["torchserve"]
    (device,) = GPU["services"]["torchserve"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]
