#!/usr/bin/env bash
# Fails when the committed stubs are not what `make protos` would generate.
set -euo pipefail
cd "$(dirname "$0")/../.."
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
.venv/bin/python -m grpc_tools.protoc -I protos \
    --python_out="$fresh" --grpc_python_out="$fresh" \
    --plugin=protoc-gen-mypy=.venv/bin/protoc-gen-mypy --mypy_out="quiet:$fresh" \
    --plugin=protoc-gen-mypy_grpc=.venv/bin/protoc-gen-mypy_grpc --mypy_grpc_out="quiet:$fresh" \
    protos/fleetest/v1/*.proto
diff -r --exclude=__init__.py --exclude=__pycache__ common/fleetest/v1 "$fresh/fleetest/v1" \
    || { echo "the stubs are out of date: run make protos"; exit 1; }
