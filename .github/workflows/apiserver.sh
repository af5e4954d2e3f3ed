#!/usr/bin/env bash
# Takes the API server of the kind cluster CLUSTER away, or brings it back:   apiserver.sh kill|start apiserver
set -euo pipefail
manifests=/etc/kubernetes/manifests
case "$1" in
kill) docker exec "$CLUSTER-control-plane" mv "$manifests/kube-apiserver.yaml" /etc/kubernetes/ ;;
start) docker exec "$CLUSTER-control-plane" mv /etc/kubernetes/kube-apiserver.yaml "$manifests/" ;;
esac
