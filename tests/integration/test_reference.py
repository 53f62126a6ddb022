"""What an operator can write or read has its place in the docs."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
REFERENCE = (ROOT / "docs" / "REFERENCE.md").read_text()
NO_METRICS = {"penstock_body_", "penstock_telemetry", "penstock_decide"}


def sources(*folders):
    return "\n".join(path.read_text() for folder in folders for path in sorted((ROOT / folder).rglob("*.cc")))


def missing(names, text):
    return sorted(name for name in names if not re.search(rf"(?<![\w]){re.escape(name)}(?![\w])", text))


def test_each_directive_is_in_the_reference():
    directives = set(re.findall(r'ngx_string\("(penstock_\w+)"\)', (ROOT / "ngx_module" / "module.cc").read_text()))
    assert len(directives) > 40 and missing(directives, REFERENCE) == []


def test_each_variable_is_in_the_reference():
    variables = set(re.findall(r'ngx_string\("(penstock_\w+)"\)', (ROOT / "ngx_module" / "variables.cc").read_text()))
    assert len(variables) > 15 and missing({f"${name}" for name in variables}, REFERENCE) == []


def test_each_error_code_is_in_the_reference():
    codes = set(re.findall(r'\.code = "(\w+)"', sources("ngx_module", "worker/queue", "worker/pool", "worker/engines")))
    assert len(codes) > 8 and missing(codes, REFERENCE) == []


def test_each_metric_is_in_a_chapter():
    """One row may name several by their ends: `penstock_device_power_watts`, `_temperature_celsius`."""
    chapters = "\n".join(path.read_text() for path in sorted((ROOT / "docs").glob("*.md")))
    ends = tuple(re.findall(r"`(_\w+)`", chapters))
    quoted = set(re.findall(r'"(penstock_\w+)"', sources("ngx_module/pages", "ngx_module/request")))
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in quoted} - NO_METRICS
    assert len(families) > 60
    assert [name for name in missing(families, chapters) if not name.endswith(ends)] == []
