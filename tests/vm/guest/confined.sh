#!/usr/bin/env bash
# On a fresh machine with systemd and AppArmor: installs, looks at what the AppArmor profile alone denies, takes a
# backup and puts it back, and purges.
set -uo pipefail
cd "$(dirname "$0")/../../.." || exit 1
. tests/vm/guest/lib.sh
expect "the installer ends with status 0" install --from /opt/berth
cat "$log"

# ---- AppArmor ----
if [ "$(cat /sys/module/apparmor/parameters/enabled 2>/dev/null)" != Y ] ||
    ! command -v apparmor_parser >/dev/null; then
    echo "skip - apparmor: no AppArmor or no apparmor_parser in this machine"
else
    profile_of() { cat "/proc/$(pid_in "$1")/attr/apparmor/current"; }
    expect "the profile is loaded and enforced" grep -qx 'berth-container (enforce)' \
        /sys/kernel/security/apparmor/profiles
    expect "doctor says so" sh -c '/usr/local/bin/berth doctor | grep apparmor | grep -q "^✓"'
    look='cat /proc/modules >/dev/null 2>&1 && echo modules read || echo modules denied; sleep 600'
    create fenced "$look"
    expect_equal "a container is in the profile" 'berth-container (enforce)' "$(profile_of fenced)"
    expect_equal "it gains no privilege" 1 "$(sed -n 's/^NoNewPrivs:\t//p' "/proc/$(pid_in fenced)/status")"
    expect "it cannot read /proc/modules" until_true 60 logged fenced 'modules denied'
    # The control: the same container without the profile, all else as before.
    sed -i 's/^#apparmor = true/apparmor = false/' /etc/berth/berth.toml
    systemctl restart berth-supervisor.service
    expect "Berth is back" until_true 90 ready
    create open "$look"
    expect_equal "the control is in no profile" unconfined "$(profile_of open)"
    expect "the control reads /proc/modules" until_true 60 logged open 'modules read'
    expect_equal "who was in the profile stays in it" 'berth-container (enforce)' "$(profile_of fenced)"
    sed -i 's/^apparmor = false/#apparmor = true/' /etc/berth/berth.toml
    systemctl restart berth-supervisor.service
    for name in fenced open; do api DELETE "/api/v1/containers/$name?force=true" >/dev/null; done
    expect "Berth is back again" until_true 90 ready
fi

# ---- the manual's backup (web/templates/help/operators.html) ----
create kept 'while date; do sleep 1; done'
before=$(identity "$(pid_in kept)")
expect "inventory and records are saved" /usr/local/bin/berth backup --to /root/berth-backup.tar.gz
expect "with the keys" sh -c 'tar -tzf /root/berth-backup.tar.gz | grep -qx db/token.key'
expect "the services stop" systemctl stop berth.socket berth.service berth-supervisor.service
expect_equal "no container is touched" "$before" "$(identity "${before%%:*}")"
expect "they are put back" /usr/local/bin/berth restore --replace /root/berth-backup.tar.gz
expect "the services start" systemctl start berth-supervisor.service berth.socket berth.service
expect "Berth is back after a restore" until_true 90 ready
expect_equal "the container is still in the same run" "$before" "$(identity "$(pid_in kept)")"
api DELETE "/api/v1/containers/kept?force=true" >/dev/null

./Dockerfile-free-install.sh --uninstall --purge >"$log" 2>&1 || not_ok "purge ends with status 0" "$(cat "$log")"
expect "the profile's file is gone" test ! -e /etc/apparmor.d/berth-container
expect "the profile is not loaded any more" sh -c '! grep -q berth-container /sys/kernel/security/apparmor/profiles'
