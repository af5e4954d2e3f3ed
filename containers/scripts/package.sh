#!/bin/sh
# Installs the wheel of this package into /opt/venv and lists all that is there in an SBOM (CycloneDX).
set -eu
/mnt/scripts/pip.sh --python /opt/venv/bin/python install --no-compile --no-deps --no-index /mnt/wheel/*.whl
/mnt/tools/bin/python -B -m cyclonedx_py environment --output-reproducible \
    --output-file /opt/venv/sbom.cdx.json /opt/venv/bin/python
/mnt/scripts/settle.sh
