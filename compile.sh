#!/usr/bin/env bash
# Compiles every pipeline to pipelines/NAME/pipeline.yaml.
#   ./compile.sh [--registry REGISTRY/PATH] [--tag TAG]        sets the images, as do REGISTRY= and TAG= before it
#   ./compile.sh [--steps-image IMAGE] [--train-image IMAGE]   other images altogether
#   ./compile.sh --check                                       fails if a committed file is out of date
set -euo pipefail
cd "$(dirname "$0")"
exec "${KFP_FINETUNE:-.venv/bin/kfp-finetune}" compile "$@"
