"""The report: Markdown tables and a chart, saying machine and versions."""

import importlib.metadata
import os
import platform
import sqlite3
from collections.abc import Iterable
from pathlib import Path

from ._measure import Figure

PACKAGES = (
    "aiohttp",
    "aiohttp-cache-middleware",
    "aiohttp-client-cache",
    "diskcache",
    "hishel",
    "httpx",
    "msgpack",
    "uvloop",
)
SVG_PANELS_ACROSS = 3


def number(value: float) -> str:
    """Show three significant digits, and no more than are needed."""
    if value >= 100 or isinstance(value, int):
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.3g}"


def cell(figure: Figure, base: Figure | None) -> str:
    """Show median, 99th percentile and ratio."""
    text = number(figure.median)
    if figure.p99 is not None:
        text += f" / {number(figure.p99)}"
    if base is not None and base is not figure and base.median:
        text += f" (**{figure.median / base.median:.2f}×**)"
    return text


def base_of(figure: Figure, figures: Iterable[Figure]) -> Figure | None:
    """Find what *figure* is compared with."""
    return next((other for other in figures if (other.what, other.client) == (figure.what, figure.base)), None)


def table(figures: list[Figure]) -> str:
    """Make a table: a row for each client, a column for each thing measured."""
    whats = list(dict.fromkeys((figure.what, figure.unit) for figure in figures))
    cells = {(figure.client, figure.what): cell(figure, base_of(figure, figures)) for figure in figures}
    lines = ["| | " + " | ".join(f"{what}, {unit}" for what, unit in whats) + " |", "|---" * (len(whats) + 1) + "|"]
    for client in dict.fromkeys(figure.client for figure in figures):
        row = " | ".join(cells.get((client, what), "–") for what, _ in whats)
        lines.append(f"| {client} | {row} |")
    return "\n".join(lines)


def versions() -> str:
    """Name the machine, the interpreter and what is installed of the packages that matter."""
    found = []
    for package in PACKAGES:
        try:
            found.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors"
    python = f"{platform.python_implementation()} {platform.python_version()}, SQLite {sqlite3.sqlite_version}"
    return f"{machine}; {python}; {', '.join(found)}"


def markdown(results: dict[str, tuple[str, list[Figure]]], remarks: list[str]) -> str:
    """Make the whole report; *results* has for each scenario what it does and its figures."""
    parts = [
        "# Benchmarks",
        f"{versions()}.",
        "Median / 99th percentile (ratio to the base of the column, measured in turns in the same run).",
        *remarks,
    ]
    for name, (about, figures) in results.items():
        parts += [f"## {name}", about, table(figures)]
    return "\n\n".join(parts) + "\n"


def write_chart(results: dict[str, tuple[str, list[Figure]]], path: Path) -> None:
    """
    Draw the ratios, a panel for each thing measured.

    Raises:
        ImportError: matplotlib is not installed.
    """
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.fonttype"] = "none"  # text stays text
    from matplotlib import pyplot as plt

    panels: dict[str, dict[str, float]] = {}
    for name, (_, figures) in results.items():
        for figure in figures:
            base = base_of(figure, figures)
            if base is not None and base.median:
                ratio = figure.median / base.median
                panels.setdefault(f"{name}: {figure.what}\n(× {base.client})", {})[figure.client] = ratio
    if not panels:
        return
    down = -(-len(panels) // SVG_PANELS_ACROSS)
    chart, axes = plt.subplots(down, SVG_PANELS_ACROSS, figsize=(18, 3.2 * down), squeeze=False, layout="constrained")
    for axis in axes.flat[len(panels) :]:
        axis.axis("off")
    for axis, (title, ratios) in zip(axes.flat, panels.items(), strict=False):
        clients = list(ratios)[::-1]
        colours = ["#1f77b4" if client.startswith(("disk", "memory")) else "#b0b0b0" for client in clients]
        bars = axis.barh(clients, [ratios[client] for client in clients], color=colours)
        axis.bar_label(bars, labels=[f"{ratios[client]:.2f}×" for client in clients], padding=3, fontsize=7)
        axis.set_title(title, fontsize=9)
        axis.margins(x=0.15)
        axis.tick_params(labelsize=7)
        axis.axvline(1, color="black", linewidth=0.6)
    chart.savefig(path)
    plt.close(chart)
