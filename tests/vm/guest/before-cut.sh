#!/usr/bin/env bash
# Installs Berth, lets people work in the background, and ends at a random moment of that: then the
# machine loses its power.
set -uo pipefail
cd "$(dirname "$0")/../../.." || exit 1
. tests/vm/guest/lib.sh

log=$(mktemp)
./Dockerfile-free-install.sh --from /opt/berth >"$log" 2>&1 || { cat "$log"; not_ok "the installer ends with status 0"; exit 1; }
create witness 'while date; do sleep 1; done'
work_until_some_moment
