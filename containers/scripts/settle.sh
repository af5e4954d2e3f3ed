#!/bin/sh
# Compiles what is new in /opt/venv, since a read-only image cannot later, and gives it one date, so that two builds of
# the same versions are the same bytes. Packages ship a few files that are not for this Python; those stay uncompiled.
set -eu
date=1980-01-01T00:00:00Z
find /opt/venv -name '*.py' -newermt "$date" | sort |
    /opt/venv/bin/python -m compileall -qq --invalidation-mode unchecked-hash -i - || true
find /opt -newermt "$date" -exec touch --no-dereference --date "$date" {} +
