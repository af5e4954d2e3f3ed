#!/bin/sh
# Installs a C compiler and Python's headers: triton builds its launchers with them, for packed rows on a GPU.
set -eu
export DEBIAN_FRONTEND=noninteractive
headers=$(python3 -c 'import sysconfig; print(sysconfig.get_paths()["include"])')
packages="gcc libc6-dev"
[ -e "$headers/Python.h" ] || packages="$packages libpython3-dev"
apt-get update -qq
# shellcheck disable=SC2086
apt-get install -y -qq --no-install-recommends $packages >/dev/null
rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/*
