#!/bin/sh
# Installs a list of requirements into /opt/venv, in pinned versions and without the packages' own tests.
set -eu
[ -e /opt/venv ] || python3 -m venv --without-pip /opt/venv
/mnt/scripts/pip.sh --python /opt/venv/bin/python install --no-compile --requirement "/mnt/requirements/$1.txt" \
    --constraint /mnt/requirements/constraints.txt --constraint /mnt/scripts/tools.txt
find /opt/venv/lib -type d -name tests -prune -exec rm -rf {} +
/mnt/scripts/settle.sh
