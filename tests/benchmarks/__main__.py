"""One command that compares: ``python -m tests.benchmarks`` (or ``tox -e bench``), ``--help`` tells the rest."""

import argparse
import asyncio
import inspect
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from ._clients import KINDS
from ._limits import LEAST
from ._measure import Figure
from ._origin import running_origin
from ._report import markdown, write_chart
from ._scenarios import SCENARIOS, Bench

Results = dict[str, tuple[str, list[Figure]]]


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="SCENARIO", choices=list(SCENARIOS), default=list(SCENARIOS))
    parser.add_argument("--clients", nargs="+", metavar="PART", help="only clients whose name contains one of these")
    parser.add_argument("--least", action="store_true", help="beside the least that any cache has to do")
    parser.add_argument("--quick", action="store_true", help="a few requests of each: shows that it runs, not how fast")
    parser.add_argument("--huge", action="store_true", help="growth: up to a million entries")
    parser.add_argument("--output", type=Path, help="write REPORT.md here, and the chart beside it")
    return parser.parse_args(given)


async def compare(bench: Bench, names: Sequence[str], written: Callable[[Results], None]) -> Results:
    """Run the scenarios called *names*, telling on stderr how it goes; *written* is called after each."""
    results: Results = {}
    for name in names:
        print(f"{name} ...", file=sys.stderr, flush=True)
        taking_part = tuple(kind for kind in bench.kinds if name in (kind.scenarios or SCENARIOS))
        figures = [figure async for figure in SCENARIOS[name](replace(bench, kinds=taking_part))]
        results[name] = (inspect.getdoc(SCENARIOS[name]) or "", figures)
        written(results)
    return results


def write(results: Results, remarks: Sequence[str], path: Path) -> None:
    """Write the tables, and the chart beside them; also of a run that is not over, for it may never be."""
    chart = path.with_suffix(".svg")
    try:
        write_chart(results, chart)
        remark = f"![The ratios as a chart]({chart.name})"
    except ImportError:
        remark = "The chart is left out: matplotlib not installed."
    path.write_text(markdown(results, [*remarks, remark]), encoding="utf-8")


def main(given: Sequence[str] | None = None) -> None:
    """Compare, print the tables, and write them and the chart if asked to."""
    options = arguments(given)
    wanted = [kind for kind in KINDS if not options.clients or any(part in kind.name for part in options.clients)]
    wanted += LEAST if options.least else ()
    remarks = [f"{kind.name} is left out: {', '.join(kind.missing)} not installed." for kind in wanted if kind.missing]
    kinds = tuple(kind for kind in wanted if not kind.missing)
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as directory, running_origin() as origin:
        bench = Bench(origin, kinds, Path(directory), quick=options.quick, huge=options.huge)
        written = partial(write, remarks=remarks, path=options.output) if options.output else lambda _: None
        results = asyncio.run(compare(bench, options.only, written))
    print(options.output.read_text(encoding="utf-8") if options.output else markdown(results, remarks))


if __name__ == "__main__":
    main()
