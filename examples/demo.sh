#!/usr/bin/env bash
# Runs the example suites on an embedded cluster that has this directory to itself and is gone afterwards.
set -uo pipefail
cd "$(dirname "$0")/bookshop"
FLEETEST_DATA_DIR=$(mktemp -d -t fleetest-demo.XXXXXX)
export FLEETEST_DATA_DIR
stop() {
    fleetest down
    rm -rf "$FLEETEST_DATA_DIR"
}
trap stop EXIT
# The shop has tests for a browser, which workers look for when they start.
../../tests/tools/install_debian.sh chromium || true

echo '$ cd examples/bookshop && fleetest run'
fleetest run
code=$?
echo
echo '$ fleetest artifacts latest'
fleetest artifacts latest
echo
echo '$ cd ../shop && fleetest run'
cd ../shop
tasks=()
if [[ $(fleetest workers --capabilities) != *browser=chromium* ]]; then
    echo 'no worker has a browser, so without the tests that need one'
    tasks=(--task=pages --task=api --task=graph --task=links --task=catalogue --task=load)
fi
fleetest run "${tasks[@]}" || code=$?
exit $code
