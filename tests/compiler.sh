#!/usr/bin/env bash
# Installs the C++ compiler that torch.compile needs on a CPU.
set -euo pipefail
command -v g++ >/dev/null && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "Installing g++ for the tests of compiled models ..."
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends g++ >/dev/null
else
    echo "g++ is not installed: the tests of compiled models will fail"
fi
