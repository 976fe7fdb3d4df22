#!/usr/bin/env bash
# Runs each test binary that was brought along and says of each test how it went.
set -uo pipefail
cd "$(dirname "$0")/../../.." || exit 1

export BERTH_BIN=/opt/berth/berth BERTH_RUNTIME_BIN=/opt/berth/berth-runtime BERTH_INJECT_BIN=/opt/berth/inject
log=$(mktemp)
for binary in /opt/tests/*; do
    name=$(basename "$binary")
    # Of the runtime's unit tests and of the specification's clauses those that v2 or systemd decide.
    filter=()
    [ "$name" != berth-runtime ] || filter=(cgroup:: network:: launch::)
    [ "$name" != conformance ] || filter=(cgroups:: namespaces:: runtime::)
    timeout 1400 "$binary" --show-output --test-threads=2 "${filter[@]}" >"$log" 2>&1
    status=$?
    sed -nE "s/^test (.*) \.\.\. ok\$/ok - $name: \1/p; s/^test (.*) \.\.\. FAILED\$/not ok - $name: \1/p" "$log"
    sed -nE "s/^SKIPPED (.*)/skip - $name: \1/p" "$log"
    if [ $status != 0 ]; then
        sed -n '/^failures:$/,$p' "$log" | head -c 20000
        grep -q ' \.\.\. FAILED$' "$log" || { tail -c 5000 "$log"; echo "not ok - $name: ended with status $status"; }
    fi
done
