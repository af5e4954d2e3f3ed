#!/usr/bin/env bash
# Prints the name of an image:   [REGISTRY=...] [TAG=...] containers/name.sh steps|train
set -euo pipefail
cd "$(dirname "$0")/.."
KFP_FINETUNE_REGISTRY=${REGISTRY:-} KFP_FINETUNE_TAG=${TAG:-} \
    exec python3 -c 'import sys; from kfp_finetune.images import image_name; print(image_name(sys.argv[1]))' "$1"
