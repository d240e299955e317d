"""What the fault tests share beside the harness."""

from __future__ import annotations

import pytest

from tests.conftest import Origin
from tests.faults.harness import serve_known_content


@pytest.fixture
def content(origin: Origin) -> None:
    """Have the origin serve content that can be told from the path."""
    serve_known_content(origin)
