"""Every example runs, in an interpreter of its own as a reader would run it, and says what it promises."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"

SAYS = {
    "composition.py": ["origin  'the engine", "cache   'the engine"],
    "download_progress.py": ["origin  first bytes", "cache   first bytes"],
    "existing_code.py": ["15 look-ups, 15 reached", "15 look-ups, 3 reached", "still ClientSession"],
    "expiration.py": ["until: for ever", "/live/score      origin"],
    "filtering.py": ["5 polls, 3 reached the origin"],
    "http_caching.py": ["edition 2", "the origin answered [200, 200, 304, 200, 200]"],
    "inspecting.py": ["leads to", "page 3 stored: True", "page 3 stored: False", "left: 0"],
    "per_request.py": ["504", "another namespace"],
    "per_user.py": ["8 requests, 4 reached the origin"],
    "post_caching.py": ["3 searches, 2 reached the origin"],
    "quickstart.py": ["1 reached the origin, 20 were answered", "28 requests, 5 reached the origin"],
    "trace_config.py": ["origin  not cached yet", "cache   the other session's answer"],
}


def test_every_example_is_named_here() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(SAYS)


WAITS = {"http_caching.py"}  # for what is stored to become stale


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow if name in WAITS else ()) for name in SAYS])
def test_example(name: str, tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", str(EXAMPLES / name)]
    environment = {**os.environ, "PYTHONPATH": str(EXAMPLES.parent), "HOME": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, cwd=tmp_path)

    assert done.stderr == ""
    assert done.returncode == 0
    for line in SAYS[name]:
        assert line in done.stdout, done.stdout
    assert list(tmp_path.iterdir()) == [], "an example leaves nothing behind"
