#!/usr/bin/env bash
# On a fresh machine with systemd: installs, adds an address of the lab's network, brings a certificate of its own.
set -uo pipefail
cd "$(dirname "$0")/../../.." || exit 1
. tests/vm/guest/lib.sh
ADDRESS=192.0.2.10
ip link add lab0 type dummy && ip address add $ADDRESS/24 dev lab0 && ip link set lab0 up

expect "the installer ends with status 0" install --from /opt/berth
cat "$log"

# ---- a second address ----
expect "an address is added without a build" install --configure --listen $ADDRESS:7443
cat "$log"
expect "the installer prints the fingerprint" grep -q "^SHA-256" "$log"
expect_equal "the file says both" 'listen = ["127.0.0.1:7777", "192.0.2.10:7443"]' \
    "$(grep '^listen' /etc/berth/berth.toml)"
expect_equal "so does the socket unit" "ListenStream=127.0.0.1:7777 ListenStream=192.0.2.10:7443" \
    "$(grep ListenStream /etc/systemd/system/berth.socket | tr '\n' ' ' | sed 's/ $//')"
generated=/var/lib/berth/db/tls-generated.pem
expect_equal "the generated key is the server's only" "600 berth" "$(stat -c '%a %U' $generated)"
openssl x509 -in $generated -out /tmp/ca.pem
get() { curl -s --max-time 60 --cacert /tmp/ca.pem -o /dev/null -w '%{http_code}' "$@"; }
expect_equal "the address answers with TLS" 200 "$(get https://$ADDRESS:7443/healthz)"
expect_equal "it is the certificate that was printed" \
    "$(openssl x509 -in $generated -noout -fingerprint -sha256 | sed 's/.*=//')" \
    "$(sed -n 's/^SHA-256 *//p' "$log")"
expect "plain HTTP there is none" sh -c "! curl -s --max-time 20 http://$ADDRESS:7443/healthz"
expect_equal "loopback is as it was" 200 "$(get http://127.0.0.1:7777/healthz)"
expect_equal "a foreign name is refused" 421 "$(get -H 'Host: evil.example' https://$ADDRESS:7443/healthz)"
plain_refused() {
    ! /usr/local/bin/berth serve --listen http://$ADDRESS:80 2>&1 | tee /tmp/plain | grep -q ready &&
        grep -q 'not a loopback address' /tmp/plain
}
expect "plain HTTP on it is refused at start, with words" plain_refused

# ---- an upgrade refuses nobody, on either address ----
refused=$(mktemp)
(while [ -e "$refused" ]; do
    curl -s -o /dev/null --max-time 60 --cacert /tmp/ca.pem https://$ADDRESS:7443/healthz || echo $? >>"$refused"
    sleep 0.2
done) &
poller=$!
expect "the installer upgrades" install --from /opt/berth
expect_equal "no TLS connection was refused meanwhile" "" "$(cat "$refused")"
rm -f "$refused"
wait $poller
expect_equal "the certificate is the same" 200 "$(get https://$ADDRESS:7443/healthz)"

# ---- inherited sockets that differ ----
sed -i 's/192.0.2.10:7443/192.0.2.10:7444/' /etc/berth/berth.toml
systemctl restart berth.service 2>/dev/null
differs() { journalctl -u berth.service -n 40 --no-pager | grep -q 'the service manager passed sockets on'; }
expect "a socket unit that differs is refused, with words" until_true 90 differs
sed -i 's/192.0.2.10:7444/192.0.2.10:7443/' /etc/berth/berth.toml
systemctl reset-failed berth.service berth.socket
systemctl restart berth.socket berth.service
expect "the control: the same ones are taken" until_true 90 ready

# ---- a certificate of the operator's ----
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=berth.lab \
    -addext "subjectAltName=DNS:berth.lab,IP:$ADDRESS" -addext basicConstraints=CA:FALSE \
    -keyout /etc/berth/key.pem -out /etc/berth/chain.pem 2>/dev/null
chgrp berth /etc/berth/key.pem && chmod 640 /etc/berth/key.pem
sed -i -e 's,^#certificate = "",certificate = "/etc/berth/chain.pem",' \
    -e 's,^#key = "",key = "/etc/berth/key.pem",' /etc/berth/berth.toml
expect "the operator's own is taken" install --configure
cp /etc/berth/chain.pem /tmp/ca.pem
named() { get --resolve berth.lab:7443:$ADDRESS https://berth.lab:7443/healthz; }
expect_equal "it answers by its name" 200 "$(named)"
server=$(main_pid berth.service)
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=berth.lab \
    -addext "subjectAltName=DNS:berth.lab" -addext basicConstraints=CA:FALSE \
    -keyout /etc/berth/key.new -out /tmp/ca.pem 2>/dev/null
chgrp berth /etc/berth/key.new && chmod 640 /etc/berth/key.new
mv /etc/berth/key.new /etc/berth/key.pem && cp /tmp/ca.pem /etc/berth/chain.pem
expect "systemctl reload works" systemctl reload berth.service
new_is_shown() { [ "$(named)" = 200 ]; }
expect "the new one is shown" until_true 60 new_is_shown
expect_equal "by the same process" "$server" "$(main_pid berth.service)"
chmod 644 /etc/berth/key.pem
expect "a key that all can read is said" \
    sh -c '/usr/local/bin/berth config --check | grep -q "every user of this machine can read it"'

# ---- users of the host ----
as_user() {
    setpriv --reuid daemon --regid daemon --clear-groups \
        curl -s -o /dev/null -w '%{http_code}' --max-time 60 --unix-socket /run/berth/local/berth.sock http://localhost/api/v1/me
}
expect_equal "the unit may write where local users find the socket" yes \
    "$(systemctl show berth.service -p ReadWritePaths | grep -q /run/berth/local && echo yes)"
expect_equal "a user of the host whom nobody has named is nobody" 403 "$(as_user)"
person=$(api POST /api/v1/people -d '{"name": "anna", "role": "user"}' | jq .person.id)
api PATCH "/api/v1/people/$person" -d '{"local_user": "daemon"}' >/dev/null
expect_equal "one who is named is somebody" 200 "$(as_user)"

# ---- signing keys ----
expect "a rotation as root" /usr/local/bin/berth keys rotate
expect_equal "the old key is kept" 2 "$(/usr/local/bin/berth keys list | wc -l)"
expect_equal "the file stays the server's" "600 berth" "$(stat -c '%a %U' /var/lib/berth/db/token.key)"
