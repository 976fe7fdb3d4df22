#!/usr/bin/env bash
# After a clean reboot: what was running and may restart does so; the rest says why it ended. Then
# removes Berth, without and with its data.
set -uo pipefail
cd "$(dirname "$0")/../../.." || exit 1
. tests/vm/guest/lib.sh

running() { [ "$(field "$1" .status)" = running ]; }

expect "this is another boot" [ "$(cat /var/tmp/boot-id)" != "$(cat /proc/sys/kernel/random/boot_id)" ]
if ! until_true 120 ready; then
    not_ok "Berth comes up by itself"
    journalctl --no-pager -b -n 60 -u 'berth*'
    exit 1
fi
ok "Berth comes up by itself"
expect "'always' runs again" until_true 120 running always
expect "'unless-stopped' runs again" until_true 120 running graceful
expect_equal "'no' does not" exited "$(field no .status)"
expect_equal "its end says why" host_shutdown "$(field no .exit.cause)"
expect "at shutdown the grace was given" logged graceful 'stopped with grace'

./Dockerfile-free-install.sh --uninstall || not_ok "uninstall ends with status 0"
expect "the units are gone" test ! -e /etc/systemd/system/berth.service
expect "no container is left" test -z "$(find /sys/fs/cgroup -type d -name 'c????????????????????????????????' 2>/dev/null)"
expect "the data is kept" test -e /var/lib/berth/db/berth.db
expect "the configuration is kept" test -e /etc/berth/berth.toml
./Dockerfile-free-install.sh --uninstall --purge || not_ok "purge ends with status 0"
expect "the data is gone" test ! -e /var/lib/berth
expect "the configuration is gone" test ! -e /etc/berth
expect "the user is gone" sh -c '! getent passwd berth'
expect "the nftables table is gone" sh -c '! nft list tables | grep -q berth'
