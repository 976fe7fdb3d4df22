#!/usr/bin/env bash
# After a power cut: Berth comes up by itself, and whatever it had acknowledged is there, whole. Then
# work goes on, for the next cut.
set -uo pipefail
cd "$(dirname "$0")/../../.." || exit 1
. tests/vm/guest/lib.sh
cut=$1
DATA=/var/lib/berth

inventory() { setpriv --reuid berth --regid berth --clear-groups sqlite3 -readonly $DATA/db/berth.db "$1"; }
told() { sed -n "s/^$1 //p" "$TOLD" | sort; }
# what was told and is not found; `gone` may have been asked for and done.
missing() { comm -23 <(told "$1") <(sort) | comm -23 - <(sed -n "s/^un$1 //p" "$ASKED" | sort); }

expect "cut $cut: the control, a file that nobody synced, is lost" \
    sh -c "! cmp -s $UNSYNCED /dev/stdin </root/unsynced.again"
if ! until_true 180 ready; then
    not_ok "cut $cut: Berth comes up by itself"
    journalctl --no-pager -b -n 60 -u 'berth*'
    exit 1
fi
ok "cut $cut: Berth comes up by itself"
printf 'told by now: '; cut -d ' ' -f 1 "$TOLD" | sort | uniq -c | xargs
for kind in person image container; do
    expect "cut $cut: something was told of a $kind" [ -n "$(told $kind)" ]
done
expect_equal "cut $cut: the inventory is whole" ok "$(inventory 'pragma integrity_check')"
expect_equal "cut $cut: no container is lost" "" "$(inventory 'select name from containers' | missing container)"
expect_equal "cut $cut: no account is lost" "" "$(inventory 'select name from people' | missing person)"
expect_equal "cut $cut: no image is lost" "" \
    "$(inventory "select replace(name, 'docker.io/library/', '') || ':' || value from image_references" | missing image)"
listed=$(inventory 'select substr(blob, 8) from image_layers union select substr(layer, 8) from container_layers' | sort -u)
until_true 60 test -z "$(ls -A $DATA/layers/tmp)"
expect_equal "cut $cut: each listed layer is there, and no other" "$listed" "$(find $DATA/layers/sha256 -mindepth 1 -maxdepth 1 -printf '%f\n' | sort)"
expect_equal "cut $cut: each blob has its digest" "" \
    "$(cd $DATA/store/blobs/sha256 && sha256sum ./* | awk '$2 != "./" $1')"
expect_equal "cut $cut: each image has all its bytes" "" "$(tests/vm/guest/images.py check $DATA "$TOLD")"
expect_equal "cut $cut: what ran is known to have ended with the machine" host_lost "$(field witness .exit.cause)"
expect_equal "cut $cut: it can be started" running "$(api POST /api/v1/containers/witness/start | jq -r .status)"
work_until_some_moment
