#!/bin/sh
# Generates src/raftgrid/_proto from ../proto. usage: ./generate.sh [OUTPUT FOLDER]; PYTHON names the interpreter that has grpcio-tools.
#
# The files that the package speaks are copied under a root where their path is that of the Python package (raftgrid/_proto/x.proto), so
# that the generated imports are right as they come: nothing generated is edited. Names on the wire do not depend on a file's path.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$here/src}
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
mkdir -p "$root/raftgrid/_proto" "$out/raftgrid/_proto"
for name in agent artifact kv ml task types; do
  sed 's#"raftgrid/v1/#"raftgrid/_proto/#' "$here/../proto/raftgrid/v1/$name.proto" > "$root/raftgrid/_proto/$name.proto"
done
"${PYTHON:-python3}" -m grpc_tools.protoc -I "$root" --python_out="$out" --pyi_out="$out" --grpc_python_out="$out" \
  raftgrid/_proto/agent.proto raftgrid/_proto/artifact.proto raftgrid/_proto/kv.proto raftgrid/_proto/ml.proto \
  raftgrid/_proto/task.proto raftgrid/_proto/types.proto
cat > "$out/raftgrid/_proto/__init__.py" <<'INIT'
"""Generated from proto/ by generate.sh. Never edited by hand."""
INIT
