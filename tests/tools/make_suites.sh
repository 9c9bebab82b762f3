#!/bin/sh
# Fetches the test suites of real projects, as their source distributions carry them, with a virtual environment for
# each, and the same packages for an image, made once. The acceptance tests compare what Fleetest says of them with what plain pytest says.
#
# Usage: tests/tools/make_suites.sh [DIRECTORY]      (default: .cache/suites)
set -eu
cd "$(dirname "$0")/../.."
target=${1:-.cache/suites}
mkdir -p "$target"
uv=.venv/bin/uv

make_suite() { # NAME VERSION PACKAGES...
    name=$1 version=$2
    shift 2
    marker=$target/$name/made
    if [ -f "$marker" ] && [ "$(cat "$marker")" = "5 $version $*" ]; then
        return 0
    fi
    rm -rf "${target:?}/$name"
    mkdir -p "$target/$name/src"
    .venv/bin/pip download --quiet --disable-pip-version-check --no-deps --no-binary :all: \
        --dest "$target/$name" "$name==$version"
    tar -xzf "$target/$name"/*.tar.gz -C "$target/$name/src" --strip-components=1
    "$uv" venv --quiet "$target/$name/venv" --python .venv/bin/python
    "$uv" pip install --quiet --compile-bytecode --python "$target/$name/venv/bin/python" "$target/$name/src" "$@"
    # For the interpreter of the tests' base image.
    "$uv" pip install --quiet --python .venv/bin/python --target "$target/$name/packages" --python-version 3.13 \
        --python-platform "$(uname -m)-manylinux_2_34" "$target/$name/src" "$@"
    cp tests/tools/few_examples.py "$("$target/$name/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
    cp tests/tools/few_examples.py "$target/$name/packages"
    printf '%s\n' "5 $version $*" > "$marker" # count it up when this recipe changes
    echo "made $target/$name"
}

make_suite click 8.5.1 pytest
make_suite attrs 26.1.0 pytest hypothesis cloudpickle pympler 'pytest-xdist[psutil]'
make_suite jinja2 3.1.6 pytest trio
make_suite werkzeug 3.1.9 pytest pytest-timeout cffi cryptography ephemeral-port-reserve
