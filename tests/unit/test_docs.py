"""What the README says is what there is."""

import re

from pydantic_core import PydanticUndefined

from orchestrator.settings import PREFIX, PROJECT, Settings

README = (PROJECT / "README.md").read_text()


def rows(heading: str) -> list[list[str]]:
    """The cells of the table rows under a heading, without their code marks."""
    section = README.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    return [
        [cell.strip().replace("`", "") for cell in line.strip("|").split(" | ")]
        for line in section.splitlines()
        if line.startswith("| `")
    ]


def test_every_setting_is_documented_with_its_default() -> None:
    documented = {row[0].strip(): row[1] for row in rows("Configuration")}
    actual = {}
    for name, field in Settings.model_fields.items():
        assert field.default is not PydanticUndefined
        default = str(field.default).removeprefix(f"{PROJECT}/")
        actual[PREFIX + name.upper()] = default
    assert documented == actual


def test_every_error_code_is_documented() -> None:
    code = "".join(file.read_text() for file in (PROJECT / "handlers").glob("*.py"))
    raised = set(re.findall(r'InvalidRequestError\(\s*"(\w+)"', code))
    assert len(raised) >= 10
    assert {row[0] for row in rows("The model by itself") if row[0] not in FIELDS} == raised


def test_every_metric_is_documented_with_its_labels() -> None:
    declared = re.findall(
        r"name: (musiclab_\w+), unit: \w+, dimensions: \[(.*)\]",
        (PROJECT / "metrics.yaml").read_text(),
    )
    documented = [(row[0], row[2]) for row in rows("Metrics")]
    assert sorted(documented) == sorted(declared)


FIELDS = ("track1, track2", "start_time_1, start_time_2")
