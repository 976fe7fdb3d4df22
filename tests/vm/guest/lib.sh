# shellcheck shell=bash
# What the guest's scripts share: results as `ok - NAME` and `not ok - NAME`, the API over root's own
# socket, and waiting for a condition with a limit. The guest's processor is some 20 times slower than
# a real one, so limits are wide.

# The installer, too, is to wait longer.
export BERTH_READY_SECS_MAX=180
SOCKET=/run/berth/server/root.sock

ok() { printf 'ok - %s\n' "$1"; }
not_ok() { printf 'not ok - %s\n' "$1"; shift; [ $# = 0 ] || printf '    %s\n' "$@"; }

# expect NAME COMMAND...: one result, by the command's status.
expect() {
    local name=$1; shift
    if "$@"; then ok "$name"; else not_ok "$name" "failed: $*"; fi
}

# expect_equal NAME WANTED FOUND
expect_equal() {
    if [ "$2" = "$3" ]; then ok "$1"; else not_ok "$1" "wanted: $2" "found:  $3"; fi
}

# until_true SECONDS COMMAND...
until_true() {
    local deadline=$((SECONDS + $1)); shift
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $deadline ] || return 1
        sleep 0.2
    done
}

# install ARGUMENTS...: the installer, what it says in $log.
log=$(mktemp)
install() { ./Dockerfile-free-install.sh "$@" >"$log" 2>&1 || { cat "$log"; return 1; }; }

api() {
    local method=$1 path=$2; shift 2
    curl --silent --show-error --fail-with-body --max-time 120 --unix-socket $SOCKET -X "$method" \
        -H 'Content-Type: application/json' "$@" "http://localhost$path"
}

ready() { api GET /readyz; }

# field NAME JQ-PATH: of a container by name.
field() { api GET "/api/v1/containers/$1" | jq -r "$2"; }

# create NAME SCRIPT [JSON]: a container from the starter image, started.
create() {
    local body
    body=$(jq -n --arg name "$1" --arg script "$2" --argjson extra "${3:-"{}"}" \
        '{name: $name, image: "berth/starter:latest", command: ["sh", "-c", $script], start: true}
            + $extra')
    expect_equal "the container '$1' runs" running \
        "$(api POST /api/v1/containers -d "$body" | jq -r .status)"
}

logs_of() { api GET "/api/v1/containers/$1/logs"; }
logged() { logs_of "$1" | grep -q "$2"; }

# A process by pid and start time, so that a reused pid is told apart.
identity() {
    local stat
    stat=$(cat "/proc/$1/stat" 2>/dev/null) || { echo gone; return; }
    # shellcheck disable=SC2086  # fields after the command's name, which may hold blanks
    set -- "$1" ${stat##*) }
    echo "$1:${21}"
}

pid_in() { field "$1" .pid; }
main_pid() { systemctl show -p MainPID --value "$1"; }

# What people were told is done, and what they have asked for, in two files on the disk.
TOLD=/root/told ASKED=/root/asked UNSYNCED=/root/unsynced

# note FILE WORDS...: one line, on the disk when this returns.
note() { local file=$1; shift; echo "$*" >>"$file" && sync -d "$file"; }

# People who work until the power fails: accounts, images, containers that come and go.
work() {
    local number name made
    for ((number = 0; ; number++)); do
        name=n$(date +%s)-$number
        case $((number % 3)) in
            0) api POST /api/v1/people -d "{\"name\": \"$name\", \"role\": \"user\"}" &&
                note $TOLD "person $name" ;;
            1) tests/vm/guest/images.py make "$name:1" >/root/image.tar
                made=$(curl -sf --max-time 120 --unix-socket $SOCKET -X POST -H 'Content-Type: application/x-tar' \
                    --data-binary @/root/image.tar http://localhost/api/v1/images/import | jq -r .id) &&
                until_true 60 sh -c "curl -s --unix-socket $SOCKET http://localhost/api/v1/operations/$made | grep -q '\"state\":\"succeeded\"'" &&
                note $TOLD "image $name:1" ;;
            2) api POST /api/v1/containers -d "{\"name\": \"$name\", \"image\": \"berth/starter:latest\"}" &&
                note $TOLD "container $name" &&
                [ $((number % 2)) = 0 ] && note $ASKED "uncontainer $name" &&
                api DELETE "/api/v1/containers/$name" ;;
        esac
    done >/dev/null 2>&1
}

# Lets them work for a while that nobody knows before; the last thing is a file that is not synced.
work_until_some_moment() {
    local before
    touch $TOLD $ASKED
    before=$(wc -l <$TOLD)
    head -c 100000 /dev/urandom >/root/unsynced.again && sync
    (work) &
    until_true 120 sh -c "[ \$(wc -l <$TOLD) -ge $((before + 4)) ]"
    sleep "$((RANDOM % 4)).$((RANDOM % 1000))"
    cp /root/unsynced.again $UNSYNCED
}
