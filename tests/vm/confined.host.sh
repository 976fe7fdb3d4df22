#!/usr/bin/env bash
# The AppArmor profile of containers, backup and restore through systemd's units, and the purge.
set -euo pipefail
cd "$(dirname "$0")/../.."

programs=$(mktemp -d)
trap 'rm -rf "$programs"' EXIT
strip -o "$programs/berth" "${BERTH_BIN:-target/debug/berth}"
strip -o "$programs/berth-runtime" "${BERTH_RUNTIME_BIN:-target/debug/berth-runtime}"
"$BERTH_VM" run --timeout 1500 --with "$programs:/opt/berth" -- tests/vm/guest/confined.sh
