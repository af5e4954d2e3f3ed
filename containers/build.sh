#!/usr/bin/env bash
# Builds an image with Docker or Podman:   containers/build.sh steps|train [--build-arg BASE=... and other flags]
# REGISTRY and TAG name it. PIP_CERT (a file of certificates) and PIP_INDEX_URL serve the build, not the image.
set -euo pipefail
secrets=()
if [ -n "${PIP_CERT:-}" ]; then
    certificates=$(realpath --canonicalize-existing "$PIP_CERT")
    secrets+=(--secret "id=certificates,src=$certificates")
fi
if [ -n "${PIP_INDEX_URL:-}" ]; then secrets+=(--secret "id=index,env=PIP_INDEX_URL"); fi
cd "$(dirname "$0")/.."
kind=$1
shift
engine=$(containers/engine.sh)
name=$(containers/name.sh "$kind")
DOCKER_BUILDKIT=1 "$engine" build --file "containers/$kind/Containerfile" --tag "$name" \
    --build-arg "VERSION=$(python3 -c 'from kfp_finetune._version import VERSION; print(VERSION)')" \
    --build-arg "REVISION=$(git describe --always --dirty --abbrev=40 --match= 2>/dev/null || echo unknown)" \
    ${secrets[@]+"${secrets[@]}"} "$@" .
