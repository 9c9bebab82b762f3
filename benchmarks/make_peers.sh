#!/bin/sh
# Makes the virtual environment of those that Fleetest is measured beside, once, with pinned versions. It is kept apart
# from the project's own: nothing that we ship depends on any of them.
#
# Usage: benchmarks/make_peers.sh [DIRECTORY]      (default: .cache/peers)
set -eu
cd "$(dirname "$0")/.."
target=${1:-.cache/peers}
packages="
celery[redis]==5.7.0
distributed==2026.8.0
ray==2.60.0
dramatiq[redis]==2.2.1
pytest==9.2.0
pytest-xdist[psutil]==3.8.0
py-spy==0.4.3"
if [ -f "$target/made" ] && [ "$(cat "$target/made")" = "$packages" ]; then
    exit 0
fi
echo "Making $target (a minute) ..."
rm -rf "$target"
.venv/bin/uv venv --quiet --python .venv/bin/python "$target"
# shellcheck disable=SC2086  # a list of words
.venv/bin/uv pip install --quiet --python "$target/bin/python" $packages
printf '%s' "$packages" > "$target/made"
echo "made $target"
