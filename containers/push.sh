#!/usr/bin/env bash
# Pushes both images:   [REGISTRY=...] [TAG=...] containers/push.sh
set -euo pipefail
cd "$(dirname "$0")/.."
engine=$(containers/engine.sh)
for kind in steps train; do
    name=$(containers/name.sh "$kind")
    "$engine" push "$name"
done
