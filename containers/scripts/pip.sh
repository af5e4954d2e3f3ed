#!/bin/sh
# pip with the certificates and the package index of the machine that builds; they stay out of the image.
set -eu
export PIP_ROOT_USER_ACTION=ignore
if [ -e /run/secrets/certificates ]; then export PIP_CERT=/run/secrets/certificates; fi
if [ -e /run/secrets/index ]; then PIP_INDEX_URL=$(cat /run/secrets/index) && export PIP_INDEX_URL; fi
exec /mnt/tools/bin/python -B -m pip --quiet --no-cache-dir --disable-pip-version-check --no-input "$@"
