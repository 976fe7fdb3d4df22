#!/usr/bin/env bash
# The tests of cgroups and network on the unified cgroup hierarchy: the same binaries as on the host, run in a machine
# that has cgroup v2 and systemd. Those of limits are in limits.host.sh, of the default profile in programs.host.sh, of
# the OCI command line in conformance.host.sh.
set -euo pipefail
cd "$(dirname "$0")/../.."

# Names of test targets; the runtime's own unit tests hold those of cgroups and bridges.
TARGETS=${BERTH_VM_TARGETS:-berth-runtime network}

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir "$scratch/programs" "$scratch/tests"
strip -o "$scratch/programs/berth" "${BERTH_BIN:-target/debug/berth}"
strip -o "$scratch/programs/berth-runtime" "${BERTH_RUNTIME_BIN:-target/debug/berth-runtime}"
strip -o "$scratch/programs/inject" target/debug/inject
# The list that tests/run has made already, or one of our own.
list=${BERTH_TEST_BINARIES:-}
if [ ! -s "$list" ]; then
    list=$scratch/list
    cargo test --workspace --no-run --quiet --message-format=json 2>/dev/null |
        jq -r 'select(.reason == "compiler-artifact" and .profile.test and .executable != null)
            | [.target.kind[0], .target.name, "-", .executable] | @tsv' | sort -u >"$list"
fi
while IFS=$'\t' read -r kind name _ executable; do
    [[ $kind == lib || " $TARGETS " != *" $name "* ]] || strip -o "$scratch/tests/$name" "$executable"
done <"$list"
# What tests would compile or find themselves: the guest has no compiler and no static busybox.
gcc -static -O1 -o "$scratch/programs/prober-64" tests/runtime/prober.c
gcc -static -O1 -m32 -o "$scratch/programs/prober-32" tests/runtime/prober.c
gcc -static -O1 -o "$scratch/programs/attacker" tests/supervisor/attacker.c
cp "$(command -v busybox)" "$scratch/programs/busybox"
"$BERTH_VM" run --timeout 1500 --with "$scratch/programs:/opt/berth" --with "$scratch/tests:/opt/tests" \
    -- tests/vm/guest/kernel.sh
