#!/usr/bin/env bash
# Prints what the images of this run of the workflow are called, as NAME=VALUE: a tag v0.1.0 must be this version's.
set -euo pipefail
cd "$(dirname "$0")/../.."
tag=$GITHUB_SHA
if [ "$GITHUB_REF_TYPE" = tag ]; then
    tag=$(python3 -c 'from kfp_finetune._version import VERSION; print(VERSION)')
    if [ "$GITHUB_REF_NAME" != "v$tag" ]; then
        echo "::error::The tag is $GITHUB_REF_NAME, but this is version $tag: tag it v$tag, or change the version." >&2
        exit 1
    fi
fi
echo "REGISTRY=ghcr.io/${GITHUB_REPOSITORY_OWNER,,}"
echo "TAG=$tag"
