#!/bin/sh
# Takes away what no step needs and an intruder would like: package managers, pip's copies, setuid bits.
# The package database stays, so that scanners know what is there.
set -eu
rm -rf /usr/bin/apt* /usr/bin/dpkg* /usr/lib/apt /usr/bin/pip* /usr/local/bin/pip* \
    /usr/local/lib/python3*/site-packages/pip* /usr/lib/python3/dist-packages/pip* \
    /usr/lib/python3*/ensurepip /usr/local/lib/python3*/ensurepip /usr/share/python-wheels
find / -xdev -type f -perm /6000 -exec chmod a-s {} +
