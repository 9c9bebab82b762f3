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

echo '$ cd examples/bookshop && fleetest run'
fleetest run
code=$?
echo
echo '$ fleetest artifacts latest'
fleetest artifacts latest
echo
echo '$ cd ../shop && fleetest run'
cd ../shop
fleetest run || code=$?
exit $code
