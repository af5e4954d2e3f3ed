#!/bin/sh
# Makes /mnt/tools: what builds the image and is not in it.
set -eu
python3 -m venv /mnt/tools
/mnt/scripts/pip.sh install --no-compile --requirement /mnt/scripts/tools.txt
