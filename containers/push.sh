#!/usr/bin/env bash
# Pushes both images:   [REGISTRY=...] [TAG=...] containers/push.sh
set -euo pipefail
cd "$(dirname "$0")/.."
engine=${ENGINE:-$(command -v docker || command -v podman)}
for kind in steps train; do "$engine" push "$(containers/name.sh $kind)"; done
