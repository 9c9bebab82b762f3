#!/bin/sh
# Makes the virtual environments in which the resident pytest session is tried: one per line of pytest, an old Python,
# one for load tests, and one for browser tests, whose videos need an ffmpeg. What exists already and has the same
# packages stays as it is.
#
# Usage: tests/tools/make_venvs.sh [DIRECTORY]      (default: .cache/venvs)
set -eu
cd "$(dirname "$0")/../.."
target=${1:-.cache/venvs}
uv=${UV:-.venv/bin/uv}
mkdir -p "$target"

make_venv() { # NAME PYTHON PACKAGES...
    name=$1 python=$2
    shift 2
    marker=$target/$name/packages.txt
    if [ -f "$marker" ] && [ "$(cat "$marker")" = "$python $*" ]; then
        return 0
    fi
    rm -rf "${target:?}/$name"
    "$uv" venv --quiet --no-python-downloads --python "$python" "$target/$name"
    "$uv" pip install --quiet --compile-bytecode --python "$target/$name/bin/python" "$@"
    printf '%s\n' "$python $*" > "$marker"
    echo "made $target/$name"
}

python=$(.venv/bin/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')
make_venv pytest7 "$python" 'pytest>=7,<8' pytest-xdist pytest-cov pytest-subtests
make_venv pytest8 "$python" 'pytest>=8,<9' pytest-xdist pytest-cov pytest-rerunfailures pytest-random-order
make_venv pytest9 "$python" 'pytest>=9,<10' pytest-xdist pytest-cov pytest-randomly pytest-rerunfailures pytest-asyncio
make_venv plain "$python" 'pytest>=9,<10'
make_venv load "$python" 'locust>=2.32' 'hdrhistogram>=0.10.8'
make_venv browser "$python" 'pytest>=9,<10' pytest-playwright imageio-ffmpeg
ffmpeg=$("$target/browser/bin/python" -c 'import imageio_ffmpeg; print(imageio_ffmpeg.get_ffmpeg_exe().partition("/lib/")[2])')
ln -sf "../lib/$ffmpeg" "$target/browser/bin/ffmpeg"

old=$(ls -d "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.8.*/bin/python 2> /dev/null | head -n 1 || true)
old=${old:-$("$uv" python find --quiet --no-python-downloads 3.8 2> /dev/null || true)}
if [ -n "$old" ]; then
    make_venv python38 "$old" 'pytest>=7,<9' pytest-xdist
else
    echo "no Python 3.8 on this machine: the session's oldest syntax is not tried" >&2
fi
