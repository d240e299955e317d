"""The benchmarks run: every scenario gives figures, all of them sane. How fast it was is not judged here."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks._measure import Figure, summarize, turns
from tests.benchmarks._report import table
from tests.benchmarks._scenarios import SCENARIOS

ROOT = Path(__file__).parent.parent


def run(tmp_path: Path, *arguments: str) -> str:
    report = tmp_path / "report.md"
    command = [sys.executable, "-m", "tests.benchmarks", "--quick", "--output", str(report), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    text = report.read_text(encoding="utf-8")
    assert done.stdout.strip() == text.strip()
    return text


def figures_of(report: str) -> list[float]:
    rows = [line.split("|")[2:-1] for line in report.splitlines() if re.match(r"\| [^| ]", line)]  # no headings
    cells = [cell for row in rows for cell in row]
    return [float(found.replace(",", "")) for cell in cells for found in re.findall(r"^ ([\d.,e+-]+)", cell)]


@pytest.mark.slow
def test_a_scenario_in_a_tiny_configuration(tmp_path: Path) -> None:
    report = run(tmp_path, "--only", "hot", "--clients", "plain", "floor", "disk", "memory")

    assert re.search(r"^\| disk \| .*×", report, re.MULTILINE)
    assert len(figures_of(report)) >= 18
    assert all(value > 0 for value in figures_of(report))


@pytest.mark.slow
@pytest.mark.parametrize("name", SCENARIOS)
def test_every_scenario(name: str, tmp_path: Path) -> None:
    report = run(tmp_path, "--only", name, "--least")

    assert f"## {name}" in report
    assert figures_of(report)
    assert all(value >= 0 for value in figures_of(report))


def test_everybody_gets_the_same_number_of_turns_and_each_begins_once() -> None:
    order = [name for name, _ in turns({"a": 1, "b": 2, "c": 3}, 3)]

    assert order == ["a", "b", "c", "b", "c", "a", "c", "a", "b"]


def test_a_ratio_is_to_the_base_of_its_column() -> None:
    figures = [
        Figure("hit", "floor", "µs", 20.0, base="floor"),
        Figure("hit", "disk", "µs", 30.0, 44.0, base="floor"),
    ]

    assert "| disk | 30.0 / 44.0 (**1.50×**) |" in table(figures)


def test_a_percentile_needs_enough_samples() -> None:
    few, many = ([0.001 * number for number in range(size)] for size in (19, 100))

    assert summarize("hit", "disk", few, unit="ms", scale=1000).p99 is None
    assert summarize("hit", "disk", many, unit="ms", scale=1000).p99 == pytest.approx(99)
