#!/bin/sh
# Makes a small Debian trixie, once: DIRECTORY/trixie is its root, DIRECTORY/trixie.tar the same for `docker import`. It
# is the base image of every container that the tests run, since they can reach no registry of images.
#
# Usage: tests/tools/make_root.sh [DIRECTORY]      (default: .cache/roots; only root can make it)
set -eu
cd "$(dirname "$0")/../.."
PATH=$PATH:/usr/sbin:/sbin
target=${1:-.cache/roots}
packages=python3,python3-venv,python3-pip,python-is-python3,nodejs,git,ca-certificates
recipe="1 $packages" # count it up when what follows changes
marker=$target/trixie.made

made() {
    [ -f "$marker" ] && [ "$(cat "$marker")" = "$recipe" ]
}

if made; then
    exit 0
fi
if [ "$(id -u)" -ne 0 ]; then
    echo "only root can make the base image of the tests in containers: run $0 as root, once" >&2
    exit 1
fi
mkdir -p "$target"
exec 9> "$target/.lock"
flock 9
if made; then
    exit 0
fi
echo "Making $target/trixie (a minute or two) ..."
rm -rf "$target/trixie" "$target/trixie.tar" "$marker"
if ! debootstrap --variant=minbase --include="$packages" trixie "$target/trixie" > "$target/debootstrap.log" 2>&1; then
    tail -n 15 "$target/debootstrap.log" >&2
    exit 1
fi
root=$target/trixie
rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/var/log/* "$root"/usr/share/doc/* \
    "$root"/usr/share/man/* "$root"/usr/share/locale/*
# The host's own, which would lead nowhere in a container; the Engine mounts one.
: > "$root/etc/resolv.conf"
# What this machine trusts: behind a proxy that opens TLS, packages come in no other way.
if [ -f /etc/ssl/certs/ca-certificates.crt ]; then
    cp --dereference /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
fi
tar --create --numeric-owner --directory "$root" --file "$target/trixie.tar" .
printf '%s\n' "$recipe" > "$marker"
echo "made $root"
