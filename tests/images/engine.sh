#!/usr/bin/env bash
# Runs a command with a container engine, the base image and the names of names.env (those of the environment go first):
#   tests/images/engine.sh COMMAND...
# The engine is the Docker that answers, or else one that is started for the command and removed after it. Commands may
# call this again: they find the engine, and the images built there, of the outer call.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=${ENGINE_ROOT:-/var/tmp}

give_up() {
    echo "$*" >&2
    exit 1
}

install() {
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null ||
        give_up "No Docker with a base image answers, and only root on Debian or Ubuntu gets what it takes ($*)." \
            "Start Docker, set BASE to a Python image that it can pull, and run this again."
    echo "Installing $* for the tests of the images ..."
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

name_what_is_built() {
    local name value
    while IFS='=' read -r name value; do
        export "$name=${!name:-$value}"
    done <"$here/names.env"
}

# A client that BuildKit is missing from cannot take secrets.
builds() { DOCKER_BUILDKIT=1 /usr/bin/docker build --help 2>/dev/null | grep -q -- --secret; }

install_engine() {
    if [ -x /usr/sbin/dockerd ] && builds && command -v iptables >/dev/null; then return; fi
    [ "$(id -u)" != 0 ] || apt-get update -qq
    local packages=(docker.io iptables) package
    # Since Debian 13 the client and BuildKit's part of it are packages of their own.
    for package in docker-cli docker-buildx; do
        if apt-cache show "$package" >/dev/null 2>&1; then packages+=("$package"); fi
    done
    install "${packages[@]}"
}

start_engine() {
    install_engine
    home=$(mktemp -d "$root/kfp-finetune-engine.XXXXXX")
    export ENGINE=/usr/bin/docker DOCKER_HOST=unix://$home/socket
    # No bridge and no rules of a firewall: nothing to clean up on the host. Builds take --network=host, containers none.
    setsid /usr/sbin/dockerd --data-root "$home/data" --exec-root "$home/exec" --pidfile "$home/pid" \
        --host "$DOCKER_HOST" --bridge none --iptables=false --ip6tables=false --ip-forward=false --log-level warn \
        >"$home/log" 2>&1 </dev/null &
    daemon=$!
    trap stop_engine EXIT
    local end=$((SECONDS + 60))
    until "$ENGINE" info >/dev/null 2>&1; do
        kill -0 "$daemon" 2>/dev/null || give_up "The engine ended at its start: $(cat "$home/log")"
        [ $SECONDS -lt $end ] || give_up "The engine does not answer: $(cat "$home/log")"
        sleep 0.2
    done
}

stop_engine() {
    kill -TERM "$daemon" 2>/dev/null || true
    wait "$daemon" || true
    # An engine that did not end by itself leaves mounts.
    awk -v below="$home/" 'index($5, below) == 1 { print $5 }' /proc/self/mountinfo | sort -r | xargs -r umount --lazy
    rm -rf --one-file-system "$home"
}

provide_base() {
    if "${ENGINE:-docker}" image inspect "$BASE" >/dev/null 2>&1; then return; fi
    if ! grep -qxF "BASE=$BASE" "$here/names.env"; then
        "${ENGINE:-docker}" pull --quiet "$BASE"
        return
    fi
    local missing=() program
    for program in mmdebstrap eatmydata; do command -v $program >/dev/null || missing+=("$program"); done
    if [ ${#missing[@]} -gt 0 ]; then
        [ "$(id -u)" != 0 ] || apt-get update -qq
        install "${missing[@]}"
    fi
    "$here/base.sh" "$BASE"
}

name_what_is_built
"${ENGINE:-docker}" info >/dev/null 2>&1 || start_engine
provide_base
"$@"
