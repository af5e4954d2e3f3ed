#!/bin/sh
# Compiles what is new in /opt/venv, since a read-only image cannot later, and gives it one date, so that two builds of
# the same versions are the same bytes.
set -eu
date=1980-01-01T00:00:00Z
find /opt/venv -name '*.py' -newermt "$date" >/tmp/new
/opt/venv/bin/python -I -B /mnt/scripts/bytecode.py </tmp/new
rm /tmp/new
find /opt -newermt "$date" -exec touch --no-dereference --date "$date" {} +
