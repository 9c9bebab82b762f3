#!/bin/sh
# Installs the Debian packages that the tests need, where they are absent: a Docker Engine, what gives it a network and a
# base image of its own; `faketime`, for processes whose clock is off; and a browser. Nothing is asked for when all is there.
#
# Usage: tests/tools/install_debian.sh [PROGRAM...]      (default: all)
set -eu
PATH=$PATH:/usr/sbin:/sbin
wanted=$*

missing=
need() { # PROGRAM PACKAGE
    case " ${wanted:-$1} " in
        *" $1 "*) command -v "$1" > /dev/null || missing="$missing $2" ;;
    esac
}
need docker docker.io
need dockerd docker.io
need docker-compose docker-compose
need containerd containerd
need iptables iptables
need ip iproute2
need debootstrap debootstrap
need faketime faketime
need chromium chromium

if [ -z "$missing" ]; then
    exit 0
fi
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get > /dev/null; then
    echo "absent:$missing; install it, or run this as root on Debian" >&2
    exit 1
fi
echo "Installing$missing ..."
export DEBIAN_FRONTEND=noninteractive
apt-get update --quiet --quiet
# shellcheck disable=SC2086  # a list of words
apt-get install --quiet --quiet --yes --no-install-recommends $missing > /dev/null
