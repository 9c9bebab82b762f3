#!/bin/sh
# Makes all that the tests need; at the same time, what does not need one another: most of it waits for the network.
set -eu
cd "$(dirname "$0")/../.."

tests/tools/install_debian.sh
tests/tools/make_root.sh &
root=$!
(tests/tools/make_mongodb.sh && tests/tools/make_emulators.sh) &
engines=$!
(tests/tools/make_venvs.sh && tests/tools/make_suites.sh) &
suites=$!
.venv/bin/python -m tests.tools.make_wheels &
wheels=$!
trap 'kill "$root" "$engines" "$suites" "$wheels" 2> /dev/null' INT TERM

failed=0
for part in "$root" "$engines" "$suites" "$wheels"; do
    wait "$part" || failed=1
done
exit "$failed"
