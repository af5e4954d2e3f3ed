#!/usr/bin/env bash
# Runs a command with a container engine: the one that answers, or else one that is started for it and removed.
set -euo pipefail

if docker info >/dev/null 2>&1; then exec "$@"; fi

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "No container engine answers. Start Docker, or set DOCKER_HOST to Podman's socket, and run this again." >&2
    exit 1
fi
missing=()
[ -x /usr/sbin/dockerd ] && [ -x /usr/bin/docker ] || missing+=(docker.io)
for program in iptables mmdebstrap eatmydata; do command -v $program >/dev/null || missing+=($program); done
if [ ${#missing[@]} -gt 0 ]; then
    echo "Installing ${missing[*]} for the tests of the images ..."
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

home=$(mktemp -d /var/tmp/kfp-finetune-engine.XXXXXX)
export ENGINE=/usr/bin/docker DOCKER_HOST=unix://$home/socket
# No bridge and no rules of a firewall: nothing to clean up on the host. Builds take --network=host, containers none.
setsid /usr/sbin/dockerd --data-root "$home/data" --exec-root "$home/exec" --pidfile "$home/pid" --host "$DOCKER_HOST" \
    --bridge none --iptables=false --ip6tables=false --ip-forward=false --log-level warn >"$home/log" 2>&1 </dev/null &
daemon=$!

finish() {
    kill -TERM "$daemon" 2>/dev/null || true
    wait "$daemon" || true
    rm -rf "$home"
}
trap finish EXIT
timeout 60 sh -c "until $ENGINE info >/dev/null 2>&1; do sleep 0.2; done" || { cat "$home/log" >&2; exit 1; }
"$@"
