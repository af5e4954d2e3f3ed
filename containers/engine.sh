#!/usr/bin/env bash
# Prints the container engine to build and push with: ENGINE if it is set, else Docker or Podman, the first that answers.
set -euo pipefail
if [ -n "${ENGINE:-}" ]; then
    echo "$ENGINE"
    exit
fi
for engine in docker podman; do
    if "$engine" info >/dev/null 2>&1; then
        echo "$engine"
        exit
    fi
done
echo "error: neither Docker nor Podman answers ('docker info', 'podman info')." \
    "Start one of them, or name another program in ENGINE." >&2
exit 1
