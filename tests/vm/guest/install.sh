#!/usr/bin/env bash
# On a fresh machine with systemd and cgroup v2: installs, upgrades and kills the parts of Berth with
# containers running. Leaves containers for after-reboot.sh.
set -uo pipefail
cd "$(dirname "$0")/../../.." || exit 1
. tests/vm/guest/lib.sh
names="always no graceful"

install_log=$(mktemp)
if ! ./Dockerfile-free-install.sh --from /opt/berth >"$install_log" 2>&1; then
    cat "$install_log"
    journalctl --no-pager -n 60 -u 'berth*'
    not_ok "the installer ends with status 0"
    exit 1
fi
cat "$install_log"
ok "the installer ends with status 0"
expect "the proof shows the container's output" grep -q '^output: *Hello from process 1, user 0' "$install_log"
expect "the proof shows the limit from the kernel's own file" \
    grep -q '^limit: *67108864 bytes of memory (/sys/fs/cgroup/.*/memory.max)' "$install_log"
expect "the proof shows the time" grep -q '^time: *[0-9]* ms' "$install_log"
expect_equal "the setup secret is root's only" "600 root" "$(stat -c '%a %U' /etc/berth/setup-secret)"

for unit in berth.socket berth.service berth-supervisor.service berth-containers.scope; do
    expect_equal "$unit is active" active "$(systemctl is-active $unit)"
done
server=$(main_pid berth.service)
expect_equal "the server is not root" berth "$(stat -c %U "/proc/$server")"
expect_equal "the server has no capability" 0000000000000000 \
    "$(sed -n 's/^CapBnd:\t//p' "/proc/$server/status")"
expect_equal "the server can gain no privilege" 1 "$(sed -n 's/^NoNewPrivs:\t//p' "/proc/$server/status")"

ticks='i=0; while :; do i=$((i+1)); echo tick $i; sleep 1; done'
create always "$ticks" '{"restart": {"name": "always"}}'
create no "$ticks" '{"restart": {"name": "no"}}'
create graceful 'trap "echo asked to stop; sleep 2; echo stopped with grace; exit 3" TERM
    echo waiting; while :; do sleep 0.2; done' '{"restart": {"name": "unless-stopped"}}'
before=()
for name in $names; do
    expect "the container '$name' writes its log" until_true 120 logged "$name" 'tick 2\|waiting'
    before+=("$(identity "$(pid_in "$name")")")
done

# alive WHEN: every container is the same process as at first.
alive() {
    local i=0 name
    for name in $names; do
        expect_equal "$1, '$name' is the same process" "${before[$i]}" "$(identity "${before[$i]%%:*}")"
        i=$((i + 1))
    done
}

# ---- upgrade ----
old_server=$(main_pid berth.service) old_supervisor=$(main_pid berth-supervisor.service)
refused=$(mktemp)
(while [ -e "$refused" ]; do
    curl -s -o /dev/null --max-time 60 http://127.0.0.1:7777/healthz || echo $? >>"$refused"
    sleep 0.2
done) &
poller=$!
expect "the installer upgrades" ./Dockerfile-free-install.sh --from /opt/berth
expect_equal "no connection was refused meanwhile" "" "$(cat "$refused")"
rm -f "$refused"
wait $poller
expect "the server is a new process" [ "$old_server" != "$(main_pid berth.service)" ]
expect "the supervisor is a new process" [ "$old_supervisor" != "$(main_pid berth-supervisor.service)" ]
alive "after the upgrade"

# ---- kill -9 ----
kill -9 "$(main_pid berth.service)"
expect "a killed server is back" until_true 120 ready
alive "after the server's death"
kill -9 "$(main_pid berth-supervisor.service)"
sleep 0.5
expect "with the supervisor killed, the server answers" until_true 120 ready
alive "after the supervisor's death"
kill -9 "$(main_pid berth-supervisor.service)" "$(main_pid berth.service)"
expect "both killed are back" until_true 120 ready
alive "after the death of both"
last=$(logs_of always | tail -1)
log_grew() { [ "$(logs_of always | tail -1)" != "$last" ]; }
expect "its log goes on" until_true 90 log_grew
# busybox's sh counts without a gap unless output was lost.
logs_of always | sed -n 's/.*tick //p' >/tmp/ticks
expect_equal "its log has no gap" "$(seq "$(wc -l </tmp/ticks)" | sha256sum)" "$(sha256sum </tmp/ticks)"

# ---- an end while nobody is there ----
create ends 'sleep 5; exit 7'
pid=$(pid_in ends)
systemctl stop berth.socket berth.service berth-supervisor.service
expect "the container ends with Berth away" until_true 120 test ! -e "/proc/$pid"
systemctl start berth-supervisor.service berth.socket berth.service
expect "Berth is back" until_true 120 ready
exit_code_kept() { [ "$(field ends .exit.code)" = 7 ]; }
expect "the exit code was kept" until_true 90 exit_code_kept
alive "after a stop of the units"

cat /proc/sys/kernel/random/boot_id >/var/tmp/boot-id
