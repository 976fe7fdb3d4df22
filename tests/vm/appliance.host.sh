#!/usr/bin/env bash
# One machine's life: install, upgrade, kill -9, reboot, uninstall (systemd, cgroup v2).
set -euo pipefail
cd "$(dirname "$0")/../.."

programs=$(mktemp -d)
trap 'rm -rf "$programs"' EXIT
strip -o "$programs/berth" "${BERTH_BIN:-target/debug/berth}"
strip -o "$programs/berth-runtime" "${BERTH_RUNTIME_BIN:-target/debug/berth-runtime}"
"$BERTH_VM" run --timeout 1500 --with "$programs:/opt/berth" \
    --reboot-then tests/vm/guest/after-reboot.sh -- tests/vm/guest/install.sh
