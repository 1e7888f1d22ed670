#!/bin/sh
# Makes a virtual environment with the package raftgrid, what its examples need and what its tests need. usage: venv.sh DIRECTORY
set -eu
venv=$1
here=$(cd "$(dirname "$0")/.." && pwd)

# A half-made environment, or one of a Python that is gone, is made again.
if ! "$venv/bin/python" -c 'import pip' >/dev/null 2>&1; then
  rm -rf "$venv"
  python3 -m venv "$venv"
fi
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable "$here/ml-code[examples,dev]"
