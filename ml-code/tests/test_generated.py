"""The committed stubs are what generate.sh makes of proto/."""

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def test_generated_code_is_up_to_date(tmp_path):
    pytest.importorskip("grpc_tools")
    if not (ROOT.parent / "proto").is_dir():
        pytest.skip("outside the checkout")
    made_by = next(
        line.split("'")[1]
        for line in (ROOT / "src/raftgrid/_proto/ml_pb2_grpc.py").read_text().splitlines()
        if line.startswith("GRPC_GENERATED_VERSION")
    )
    if metadata.version("grpcio-tools") != made_by:
        pytest.skip(f"made by grpcio-tools {made_by}: another version writes other files (pip install 'raftgrid[dev]')")
    subprocess.run(
        ["sh", str(ROOT / "generate.sh"), str(tmp_path)], check=True, env={**os.environ, "PYTHON": sys.executable}
    )
    committed = ROOT / "src" / "raftgrid" / "_proto"
    made = tmp_path / "raftgrid" / "_proto"
    names = sorted(path.name for path in made.iterdir())
    assert names == sorted(path.name for path in committed.iterdir() if path.is_file()) and len(names) == 19
    for name in names:
        assert (made / name).read_text() == (committed / name).read_text(), f"{name}: run ml-code/generate.sh"
