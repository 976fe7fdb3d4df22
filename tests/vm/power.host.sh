#!/usr/bin/env bash
# The power is cut while people work, and the machine boots from what its disk had by then (systemd,
# cgroup v2): once, and ten times with BERTH_LONG=1.
set -euo pipefail
cd "$(dirname "$0")/../.."

cuts=1
[ "${BERTH_LONG:-}" != 1 ] || cuts=10
programs=$(mktemp -d)
trap 'rm -rf "$programs"' EXIT
strip -o "$programs/berth" "${BERTH_BIN:-target/debug/berth}"
strip -o "$programs/berth-runtime" "${BERTH_RUNTIME_BIN:-target/debug/berth-runtime}"
after=()
for ((cut = 1; cut <= cuts; cut++)); do
    after+=(--power-cut-then "tests/vm/guest/after-cut.sh $cut")
done
"$BERTH_VM" run --timeout $((1000 + 240 * cuts)) --with "$programs:/opt/berth" "${after[@]}" -- \
    tests/vm/guest/before-cut.sh
