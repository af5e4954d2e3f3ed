#!/bin/sh
# Installs a list of requirements into /opt/venv, in pinned versions, without the packages' own tests and without what
# Arrow has for C++ and for its RPC.
set -eu
[ -e /opt/venv ] || python3 -m venv --without-pip /opt/venv
/mnt/scripts/pip.sh --python /opt/venv/bin/python install --no-compile --requirement "/mnt/requirements/$1.txt" \
    --constraint /mnt/requirements/constraints.txt --constraint /mnt/scripts/tools.txt
find /opt/venv/lib -type d -name tests -prune -exec rm -rf {} +
rm -rf /opt/venv/lib/python3*/site-packages/pyarrow/include /opt/venv/lib/python3*/site-packages/pyarrow/*flight*
/mnt/scripts/settle.sh
