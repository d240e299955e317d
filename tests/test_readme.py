"""What the README shows runs, and what it lists is all there is."""

import ast
import asyncio
import inspect
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

import aiohttp_cache_middleware
from aiohttp_cache_middleware._options import CacheSettings

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


@pytest.fixture
async def origin() -> AsyncIterator[TestServer]:
    async def prices(request: web.Request) -> web.Response:
        return web.json_response({"tea": 3})

    app = web.Application()
    app.router.add_get("/prices", prices)
    server = TestServer(app)
    async with server:
        yield server


async def execute(source: str) -> None:
    """Run a block: a program in a thread of its own, for it has its own loop; anything else with ``await`` allowed."""
    code = compile(source, "README.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    names = {"__name__": "__main__"}
    if "asyncio.run(" in source:
        await asyncio.to_thread(exec, code, names)
    else:
        pending = eval(code, names)
        if inspect.isawaitable(pending):
            await pending


@pytest.mark.parametrize("block", BLOCKS, ids=[f"block {number}" for number in range(1, len(BLOCKS) + 1)])
async def test_code(block: str, origin: TestServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))

    await execute(block.replace("https://api.example.com", str(origin.make_url("/")).rstrip("/")))


async def test_the_ten_lines_print_what_is_said(
    origin: TestServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    ten_lines = BLOCKS[0].replace("https://api.example.com", str(origin.make_url("/")).rstrip("/"))

    await execute(ten_lines)
    await execute(ten_lines)

    assert [line.split()[0] for line in capfd.readouterr().out.splitlines()] == ["origin", "cache", "cache", "cache"]


@pytest.mark.parametrize("option", CacheSettings.__annotations__)
def test_every_option_has_a_row(option: str) -> None:
    assert re.search(rf"^\| .*`{option}`", README, re.MULTILINE)


@pytest.mark.parametrize("name", aiohttp_cache_middleware.__all__)
def test_every_public_name_is_told(name: str) -> None:
    assert name in README


def test_links_lead_somewhere() -> None:
    titles = re.findall(r"^#+ (.*)$", README, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}
    for target in re.findall(r"\]\(([^)]+)\)", README):
        if target.startswith("#"):
            assert target[1:] in anchors
        elif not target.startswith("https://"):
            assert (ROOT / target).exists(), target


def test_the_commands_are_one_line_each_and_name_what_is_there() -> None:
    commands = re.findall(r"^```sh\n(.*?)^```", README, re.MULTILINE | re.DOTALL)

    assert [command.count("\n") for command in commands] == [1, 1]
    assert (ROOT / "examples/quickstart.py").exists()


def test_ci_runs_the_command_for_checks_and_tests_step_by_step() -> None:
    (command,) = re.findall(r"^python3 -m venv .*ruff.*$", README, re.MULTILINE)
    steps = command.replace(".venv/bin/", "").split(" && ")[1:]

    lines = (ROOT / ".ci/run").read_text(encoding="utf-8").splitlines()

    assert lines[lines.index(steps[0]) :] == [*steps, "pytest tests/faults", "pytest -m slow tests"]
