#!/bin/sh
# Fetches the test suites of real projects, as their source distributions carry them, with a virtual environment for
# each, made once. They are run by us and by our peers.
#
# Usage: benchmarks/make_suites.sh [DIRECTORY]      (default: .cache/bench-suites)
set -eu
cd "$(dirname "$0")/.."
target=${1:-.cache/bench-suites}
runner="pytest==9.2.0 pytest-xdist[psutil]==3.8.0"

make_suite() { # NAME VERSION PACKAGES...
    name=$1 version=$2
    shift 2
    marker=$target/$name/made
    if [ -f "$marker" ] && [ "$(cat "$marker")" = "$version $runner $*" ]; then
        return 0
    fi
    rm -rf "${target:?}/$name"
    mkdir -p "$target/$name/src"
    .venv/bin/pip download --quiet --disable-pip-version-check --no-deps --no-binary :all: \
        --dest "$target/$name" "$name==$version"
    tar -xzf "$target/$name"/*.tar.gz -C "$target/$name/src" --strip-components=1
    .venv/bin/uv venv --quiet "$target/$name/venv" --python .venv/bin/python
    # shellcheck disable=SC2086  # a list of words
    .venv/bin/uv pip install --quiet --python "$target/$name/venv/bin/python" "$target/$name"/*.tar.gz $runner "$@"
    printf '%s\n' "$version $runner $*" > "$marker"
    echo "made $target/$name"
}

make_suite click 8.5.1
make_suite jinja2 3.1.6 trio
make_suite networkx 3.6.1
