#!/usr/bin/env bash
# The tests of limits in a machine that has cgroup v2 and systemd, as kernel.host.sh runs the others.
set -euo pipefail
export BERTH_VM_TARGETS=limits
exec "$(dirname "$0")/kernel.host.sh"
