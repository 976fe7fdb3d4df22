#!/usr/bin/env bash
# On the lab's network: a second address with TLS through systemd, a new certificate without a restart, signing keys.
set -euo pipefail
cd "$(dirname "$0")/../.."

programs=$(mktemp -d)
trap 'rm -rf "$programs"' EXIT
strip -o "$programs/berth" "${BERTH_BIN:-target/debug/berth}"
strip -o "$programs/berth-runtime" "${BERTH_RUNTIME_BIN:-target/debug/berth-runtime}"
"$BERTH_VM" run --timeout 1500 --with "$programs:/opt/berth" -- tests/vm/guest/lab.sh
