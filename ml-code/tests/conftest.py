"""Every test starts without raftgrid's environment, wherever pytest itself runs."""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    for name in list(os.environ):
        if name.startswith("RAFTGRID_"):
            monkeypatch.delenv(name)
