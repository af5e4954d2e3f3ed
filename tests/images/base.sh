#!/usr/bin/env bash
# Makes an image like python:slim out of Debian's packages, for a machine that reaches no registry:   base.sh NAME
set -euo pipefail
eatmydata mmdebstrap --quiet --variant=minbase --include=python3,python3-venv,ca-certificates \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' --customize-hook='touch "$1"/etc/hosts "$1"/etc/resolv.conf' bookworm |
    "${ENGINE:-docker}" import - "$1"
