#!/usr/bin/env bash
# Installs, upgrades, checks and removes Berth on one machine, and proves that it works.
#
#   sudo ./Dockerfile-free-install.sh [OPTION]...
#
#   (no option)       install or upgrade, start, and launch a limited container as proof
#   --from DIR        take the programs berth and berth-runtime from DIR instead of building them
#   --listen ADDRESS  listen on this address and port as well, such as 192.0.2.10:7443 or 0.0.0.0:443;
#                     all but loopback is TLS. May be given again. Written into the configuration
#   --configure       build nothing: take the configuration as it is now, with --listen, and restart
#   --check           say what this host has and lacks and what would be done; change nothing
#   --uninstall       stop containers, remove programs and services; data and configuration stay
#   --purge           with --uninstall: remove data, configuration, logs and the user as well
#   --help            print this text
#
#   Where it goes, for tests and second instances:
#   --prefix DIR      put programs, configuration, data and logs below DIR; implies --no-systemd
#   --config FILE     the configuration file (default: PREFIX/etc/berth/berth.toml)
#   --instance NAME   with a new configuration: name of the instance (default: berth)
#   --user NAME       with a new configuration: the server's user (default: berth)
#   --no-systemd      run in the background with pid files even where systemd runs
#
# Running it again upgrades: server and supervisor are replaced, running containers live on.
# A configuration file that somebody has edited is never overwritten.
set -euo pipefail
umask 022

SELF=$(realpath "${BASH_SOURCE[0]}")
HERE=$(dirname "$SELF")
RUST_MINOR_MIN=94
RUN_PACKAGES="ca-certificates curl jq nftables iproute2 busybox-static util-linux coreutils tar e2fsprogs"
BUILD_PACKAGES="gcc libc6-dev pkg-config"
READY_SECS_MAX=${BERTH_READY_SECS_MAX:-60}
UNIT_DIR=/etc/systemd/system
APPARMOR_FILE=/etc/apparmor.d/berth-container
APPARMOR_PROFILE=berth-container
UNITS="berth-supervisor.service berth.socket berth.service"
PROOF_NAME=berth-proof
STARTER_TAG=berth/starter:latest

action=install from='' prefix='' config='' instance=berth user=berth
purge='' systemd=yes configure=''
listen=() listen_more=()

usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$SELF"; }
say() { printf '%s\n' "$*"; }
step() { printf '\n== %s\n' "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

parse_arguments() {
    while [ $# -gt 0 ]; do
        case $1 in
            --from) from=$(realpath "${2:?--from needs a folder}"); shift ;;
            --check) action=check ;;
            --uninstall) action=uninstall ;;
            --purge) purge=yes ;;
            --prefix) mkdir -p "${2:?--prefix needs a folder}"; prefix=$(realpath "$2"); systemd=; shift ;;
            --config) config=$(realpath -m "${2:?--config needs a file}"); shift ;;
            --instance) instance=${2:?--instance needs a name}; shift ;;
            --listen) listen_more+=("${2:?--listen needs an address}"); shift ;;
            --configure) configure=yes ;;
            --user) user=${2:?--user needs a name}; shift ;;
            --no-systemd) systemd= ;;
            --print-config) action=print_config ;;
            -h | --help) usage; exit 0 ;;
            *) die "unknown option '$1' (see --help)" ;;
        esac
        shift
    done
    [ -z "$purge" ] || [ "$action" = uninstall ] || die "--purge goes with --uninstall"
    [ -z "$configure" ] || [ "$action" = install ] || die "--configure goes with no other action"
    [ -d /run/systemd/system ] || systemd=
    [[ $instance =~ ^[a-z0-9]{1,8}$ ]] || die "--instance: 1 to 8 lower-case letters and digits"
}

# ---- where things are -----------------------------------------------------------------------------

# toml_get SECTION KEY DEFAULT: a plain value of the configuration file.
toml_get() {
    local value=''
    if [ -e "$config" ]; then
        value=$(awk -v section="$1" -v key="$2" '
            /^[ \t]*\[/ { name = $0; gsub(/[][ \t]/, "", name); next }
            name == section && $0 ~ "^[ \t]*" key "[ \t]*=" {
                sub(/^[^=]*=[ \t]*/, ""); sub(/[ \t]*(#.*)?$/, ""); gsub(/"/, ""); print; exit
            }' "$config")
    fi
    printf '%s' "${value:-$3}"
}

# toml_list SECTION KEY: the items of a list, or the one value, one a line.
toml_list() {
    [ -e "$config" ] || return 0
    awk -v section="$1" -v key="$2" '
        function clean(line) { sub(/#.*/, "", line); return line }
        found { text = text clean($0) }
        !found && /^[ \t]*\[/ { name = $0; gsub(/[][ \t]/, "", name); next }
        !found && name == section && $0 ~ "^[ \t]*" key "[ \t]*=" {
            found = 1; line = $0; sub(/^[^=]*=/, "", line); text = clean(line)
        }
        found && (text !~ /\[/ || text ~ /\]/) {
            gsub(/[][" \t]/, "", text); count = split(text, item, ",")
            for (i = 1; i <= count; i++) if (item[i] != "") print item[i]
            exit
        }' "$config"
}

is_loopback() { [[ ${1#*://} == 127.* || ${1#*://} == \[::1\]:* ]] && [[ $1 != https://* ]]; }

# Where to listen: what the file says and what was asked for. Loopback stays, beside any other.
settle_listen() {
    local address loopback=''
    mapfile -t listen < <(toml_list server listen)
    for address in "${listen_more[@]}"; do
        [[ " ${listen[*]} " == *" $address "* ]] || listen+=("$address")
    done
    for address in "${listen[@]}"; do ! is_loopback "$address" || loopback=yes; done
    if [ ! -e "$config" ] && [ -z "$loopback" ]; then listen=(127.0.0.1:7777 "${listen[@]}"); fi
    [ ${#listen[@]} -gt 0 ] || listen=(127.0.0.1:7777)
}

# The addresses as the configuration writes them.
listen_toml() {
    local items
    if [ ${#listen[@]} = 1 ]; then printf '"%s"' "${listen[0]}"; return; fi
    items=$(printf '"%s", ' "${listen[@]}")
    printf '[%s]' "${items%, }"
}

# The configuration file is the truth of where an installed instance lies.
locate() {
    bin_dir=$prefix/usr/local/bin
    share_dir=$prefix/usr/local/share
    log_dir=$prefix/var/log/berth
    config=${config:-$prefix/etc/berth/berth.toml}
    config_dir=$(dirname "$config")
    instance=$(toml_get runtime instance "$instance")
    settle_listen
    user=$(toml_get runtime server_user "$user")
    data_dir=$(toml_get runtime data_dir "$prefix/var/lib/berth")
    run_dir=$(toml_get runtime run_dir "$prefix/run/berth")
    root_socket=$run_dir/server/root.sock
    secret_file=$config_dir/setup-secret
    local path
    for path in "$data_dir" "$run_dir"; do
        [[ $path == /*/* ]] || die "$config: '$path' is no place for Berth's own folder"
    done
}

print_config() {
    cat <<TOML
# Berth's configuration. Each line that is commented out shows the default; take the # away to change
# it, then run the installer again (or restart berth-supervisor and berth). A wrong key is refused with
# its name and line. Environment variables and flags go over this file: see 'berth serve --help'.

[server]
# Where the dashboard and the API listen: an address and port, or a list of them. Plain HTTP on
# loopback, TLS on all others ("https://" in front asks for TLS on loopback too). The socket unit is
# written from this line: run the installer with --configure after a change.
listen = $(listen_toml)
# Host names by which browsers reach this server; without port. Addresses, loopback names and the
# certificate's own names are taken anyway.
#hosts = []
# Proxies, as addresses or networks, that are believed who their client is; nobody else is. They must
# set these headers themselves: "x-forwarded" (X-Forwarded-For, -Proto, -Host) or "forwarded" (RFC 7239).
#trusted_proxies = []
#proxy_headers = "x-forwarded"
# Connections at once, and of one address; requests being answered at once; event and log streams of
# one person at once.
#connections_max = 1024
#connections_per_address_max = 256
#requests_max = 256
#streams_max = 64
# What is logged, such as "info,berth=debug".
#log = "info"
# "text", or "json": an object a line, with a line for each answer (request_id, person, route, status, duration_ms).
#log_format = "text"

[tls]
# The certificate chain and its key in PEM, which the server's user must be allowed to read; taken anew
# when they change. Empty for a certificate that Berth makes ('berth certificate' shows its fingerprint).
#certificate = ""
#key = ""
# Whether browsers are told to use nothing but TLS with this name, on all its ports: "auto" (with a
# certificate of your own, or behind a trusted proxy with TLS), "always", "never".
#hsts = "auto"
# TLS handshakes at once.
#handshakes_max = 128

[rates]
# Requests per minute, at most one minute's at once: of an address before anybody has signed in, and
# tries to sign in from it (loopback is not counted); of a person, their changes, and what costs much
# (pulls, imports, exports).
#address_per_min = 1200
#sign_ins_per_min = 60
#person_per_min = 6000
#changes_per_min = 3000
#costly_per_min = 120

[auth]
# A session ends this long after sign-in; sessions of one person at once.
#session_hours = 168
#sessions_max = 50
# How long an invitation's link is good.
#invitation_hours = 72
# The longest life that a token can be given; tokens of one person at once.
#token_days_max = 366
#tokens_max = 50
# Who must have a second factor (everybody may): "optional" for nobody, "overseers" for operators and auditors,
# "everybody". Who must and has none can sign in, and do nothing but set it up.
#second_factor = "optional"

[containers]
# Containers of one person.
#per_person_max = 200
# Ports of the host that one person's containers have together; which can be leased is said in [runtime].
#ports_per_person_max = 32
# Volumes of one person: directories that outlive containers.
#volumes_per_person_max = 64
# Size of a container's /dev/shm where nothing is said; never above its memory.
#shm_bytes = 67108864
# Seconds between the stop signal and the end, where nothing is said.
#stop_grace_secs = 10
# Seconds that a terminal, or another program beside a container's first one, waits for somebody to
# attach before it is ended.
#unattended_secs = 60
# A container's log: size of a file, and files kept.
#log_file_bytes = 10485760
#log_files = 3

# The limits of a container where nothing is said.
#[containers.default_limits]
#cpu_millis = 1000
#cpu_weight = 100
#memory_bytes = 536870912
#swap_bytes = 0
#pids = 512

# Sizes that the launch page offers; these if none is here.
#[[containers.sizes]]
#name = "small"
#limits = { cpu_millis = 500, cpu_weight = 100, memory_bytes = 268435456, swap_bytes = 0, pids = 128 }
#[[containers.sizes]]
#name = "medium"
#limits = { cpu_millis = 1000, cpu_weight = 100, memory_bytes = 1073741824, swap_bytes = 0, pids = 512 }
#[[containers.sizes]]
#name = "large"
#limits = { cpu_millis = 4000, cpu_weight = 100, memory_bytes = 8589934592, swap_bytes = 0, pids = 2048 }

[images]
# Bytes of one uploaded archive at most.
#import_bytes_max = 17179869184

[registries]
# The only registries that images may come from, such as "docker.io" or "registry.lab:5000"; empty for
# all.
#allowed = []
# Registries ("host:port") that are spoken to in plain HTTP; these may have private addresses.
#insecure = []
# Registries with TLS that may have a private address.
#internal = []
# Networks that nothing is fetched from, beside those that are never public.
#forbidden_networks = []
# A registry that sends nothing for so many seconds, or hardly anything, has failed.
#stall_secs = 30
# Authorities (PEM) that are trusted beside the system's; the lab's proxy for public registries, and
# a file with user:password for it. Both files must be readable by the user berth. None of the three
# is set by default:
# ca_file = "/etc/berth/ca.pem"
# proxy = "http://proxy.lab:3128"
# proxy_credentials_file = "/etc/berth/proxy-credentials"

[retention]
# Records older or more than this are dropped.
#events_days = 30
#events_max = 100000
#operations_days = 30
#operations_max = 20000
#audit_days = 366
#audit_max = 1000000
# What people have used on days before this many is dropped.
#usage_days = 400
# How long an Idempotency-Key is remembered.
#idempotency_hours = 24

[runtime]
# Names what this instance owns in the kernel: cgroups, the nftables table, bridges.
instance = "$instance"
# What outlives a boot: the inventory, image layers, people's data.
data_dir = "$data_dir"
# Live state; on tmpfs.
run_dir = "$run_dir"
# The server's user; only it and root may ask the supervisor.
server_user = "$user"
# The block of host user ids that people's ranges of 65,536 are cut from, first and last.
#id_first = 2000224256
#id_last = 2147352575
# Subnets of people's bridges are cut from this pool, one of this prefix length each.
#network_pool = "10.201.0.0/16"
#network_prefix = 26
# IPv6 for containers: a unique local network of 96 bits, of your own (RFC 4193: fd and 40 random bits). The first
# container then has this host pass on IPv6 (net.ipv6.conf.all.forwarding).
#network_pool6 = "fd5e:1c2a:9b44::/96"
# Name servers for containers; empty for the host's own.
#nameservers = []
# Ports of the host that people can lease for their containers, first and last, and on which of its addresses:
# "0.0.0.0" for all of IPv4 that it has, "::" for all of IPv6 (takes a network_pool6), [] for none. Not those that something on the host listens on. What is sent to
# them is passed on, so the host's own rules for forwarded packets hold for them.
#port_first = 20000
#port_last = 20999
#port_addresses = ["127.0.0.1"]
# Bounds of one image layer: bytes and entries once unpacked; and layers unpacked at the same time.
#layer_bytes_max = 68719476736
#layer_entries_max = 2000000
#unpackers_max = 4
# Whether containers enter the AppArmor profile berth-container where it is loaded.
#apparmor = true
# Whether the log says how long each phase of a start takes.
#timing = false

# What all containers together leave to the host: thousandths of a core (0: none), the weight of all of them beside
# the rest of their cgroup, and memory: without a line for memory_bytes a sixteenth of it, from 256 MiB to 4 GiB;
# with 0 none.
#[runtime.reserve]
#cpu_millis = 0
#cpu_weight = 100

# Directories of this machine that containers can be given to read, by name: one table for each. Without a line for
# groups everybody may have it. The path has no symbolic links, and every user of the machine may read what is to be read.
#   [runtime.data_sets.dogs]
#   path = "/srv/dogs"
#   description = "Photographs of dogs"
#   groups = ["course-a"]

# The most that one container may ever be given; the supervisor refuses more.
#[runtime.ceilings]
#cpu_millis = 1024000
#cpu_weight = 10000
#memory_bytes = 4398046511104
#swap_bytes = 4398046511104
#pids = 32768
TOML
}

# ---- packages and programs ------------------------------------------------------------------------

installed() { [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

missing_packages() {
    local package wanted=$RUN_PACKAGES
    [ -n "$from$configure" ] || wanted="$wanted $BUILD_PACKAGES"
    command -v dpkg-query >/dev/null || return 0
    for package in $wanted; do installed "$package" || printf '%s ' "$package"; done
}

apt_install() {
    say "installing: $*"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" \
        </dev/null >/dev/null
}

install_packages() {
    local missing command lacking=()
    read -ra missing <<<"$(missing_packages)"
    if [ ${#missing[@]} -gt 0 ] && command -v apt-get >/dev/null; then
        step "Packages"
        apt_install "${missing[@]}"
    fi
    for command in curl jq nft ip busybox setpriv setsid tar sha256sum; do
        command -v $command >/dev/null || lacking+=("$command")
    done
    [ ${#lacking[@]} = 0 ] || die "these programs are needed and could not be installed: ${lacking[*]}"
    [ -n "$from$configure" ] || command -v cc >/dev/null || die "a C compiler (cc) is needed to build"
}

new_enough() {
    local version
    version=$("$1" --version 2>/dev/null) || return 1
    [[ $version =~ \ 1\.([0-9]+)\. ]] && [ "${BASH_REMATCH[1]}" -ge $RUST_MINOR_MIN ]
}

# Prints the first cargo that is new enough, of those that root or the caller of sudo would find.
find_cargo() {
    local candidate home
    home=$(getent passwd "${SUDO_USER:-root}" | cut -d: -f6)
    for candidate in "$(command -v cargo || true)" "$home/.cargo/bin/cargo" /root/.cargo/bin/cargo \
        /usr/local/cargo/bin/cargo /usr/bin/cargo /usr/bin/cargo-1.*; do
        if [ -x "$candidate" ] && new_enough "$candidate"; then
            printf '%s' "$candidate"
            return 0
        fi
    done
    return 1
}

# Prints the packages with a compiler that is new enough. Debian has current ones as cargo-web, Ubuntu
# as cargo-1.NN.
cargo_packages() {
    local package version
    command -v apt-cache >/dev/null || return 1
    for package in cargo-web cargo \
        $(apt-cache search --names-only '^cargo-1\.[0-9]+$' | cut -d' ' -f1 | sort -rV); do
        version=$(apt-cache policy "$package" 2>/dev/null | sed -n 's/^ *Candidate: *//p')
        if [[ $version =~ ^([0-9]+:)?1\.([0-9]+)\. ]] &&
            [ "${BASH_REMATCH[2]}" -ge $RUST_MINOR_MIN ]; then
            printf '%s %s' "$package" "${package/cargo/rustc}"
            return 0
        fi
    done
    return 1
}

build() {
    local cargo packages owner command
    step "Build (release; several minutes the first time)"
    if ! cargo=$(find_cargo); then
        apt-get update -qq || true
        packages=$(cargo_packages) || die "Rust 1.$RUST_MINOR_MIN or newer is needed to build, and this system's packages have none.
Install it from https://rustup.rs and run this again, or build elsewhere and use --from DIR."
        # shellcheck disable=SC2086  # two package names
        apt_install $packages
        cargo=$(find_cargo) || die "cargo from the packages '$packages' is not new enough"
    fi
    say "$("$cargo" --version)"
    command=(env "PATH=$(dirname "$cargo"):$PATH" "CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$HERE/target}")
    # Versioned packages come in pairs.
    [[ $cargo != *cargo-1.* ]] || command+=("RUSTC=${cargo/cargo-/rustc-}")
    command+=("$cargo" build --release --locked --manifest-path "$HERE/Cargo.toml"
        -p berth -p berth-runtime)
    # What lies in the checkout stays its owner's.
    owner=$(stat -c %U "$HERE")
    if [ "$owner" != root ] && runuser -u "$owner" -- test -x "$cargo" 2>/dev/null; then
        runuser -u "$owner" -- "${command[@]}"
    else
        "${command[@]}"
    fi
    from=${CARGO_TARGET_DIR:-$HERE/target}/release
}

install_programs() {
    local program
    step "Programs in $bin_dir"
    install -d -m 755 "$bin_dir"
    for program in berth berth-runtime; do
        [ -x "$from/$program" ] || die "$from/$program is not there"
        # Renamed over the old one, which running processes keep.
        install -o root -g root -m 755 "$from/$program" "$bin_dir/.$program.new"
        mv -f "$bin_dir/.$program.new" "$bin_dir/$program"
    done
}

# What the program says of itself, where shells and man(1) look for it.
install_manual() {
    step "Completion and manual pages in $share_dir"
    install -d -m 755 "$share_dir"/{man/man1,bash-completion/completions,zsh/site-functions,fish/vendor_completions.d}
    "$bin_dir/berth" man --dir "$share_dir/man/man1"
    "$bin_dir/berth" completion bash >"$share_dir/bash-completion/completions/berth"
    "$bin_dir/berth" completion zsh >"$share_dir/zsh/site-functions/_berth"
    "$bin_dir/berth" completion fish >"$share_dir/fish/vendor_completions.d/berth.fish"
    chmod 644 "$share_dir"/man/man1/berth{,-*}.1 "$share_dir/bash-completion/completions/berth" \
        "$share_dir/zsh/site-functions/_berth" "$share_dir/fish/vendor_completions.d/berth.fish"
}

remove_manual() {
    rm -f "$share_dir"/man/man1/berth{,-*}.1 "$share_dir/bash-completion/completions/berth" \
        "$share_dir/zsh/site-functions/_berth" "$share_dir/fish/vendor_completions.d/berth.fish"
}

# ---- user, folders, configuration -----------------------------------------------------------------

install_user() {
    getent passwd "$user" >/dev/null && return 0
    say "user $user"
    useradd --system --user-group --no-create-home --home-dir /nonexistent \
        --shell /usr/sbin/nologin --comment "Berth server" "$user"
}

folder() { install -d -m "$1" -o "$2" -g "$2" "$3"; }

install_folders() {
    folder 711 root "$data_dir"
    folder 700 "$user" "$data_dir/db"
    folder 700 "$user" "$data_dir/store"
    folder 711 root "$run_dir"
    folder 700 "$user" "$run_dir/server"
    folder 711 "$user" "$run_dir/local"
    folder 750 root "$log_dir"
}

# Replaces the file when it is as an installer left it, else writes the new one beside it.
install_config() {
    local mark=$config_dir/.berth.toml.sha256 new
    step "Configuration $config"
    install -d -m 755 "$config_dir"
    new=$(print_config)
    if [ ! -e "$config" ] || (cd "$config_dir" && sha256sum --quiet -c "$mark" >/dev/null 2>&1); then
        printf '%s\n' "$new" >"$config.tmp"
        chmod 644 "$config.tmp"
        mv -f "$config.tmp" "$config"
        (cd "$config_dir" && sha256sum "$(basename "$config")" >"$mark")
    elif [ ${#listen_more[@]} -gt 0 ]; then
        edit_listen
    else
        say "edited: left as it is"
    fi
}

# Changes the line of a file that somebody has edited, and nothing else; a file that would not be good
# is thrown away.
edit_listen() {
    local new=$config.tmp
    awk -v line="listen = $(listen_toml)" '
        skipping { if (/\]/) skipping = 0; next }
        /^[ \t]*\[/ {
            if (name == "server" && !done) { print line; done = 1 }
            name = $0; gsub(/[][ \t]/, "", name)
        }
        name == "server" && !done && /^[ \t]*listen[ \t]*=/ {
            print line; done = 1
            if (/\[/ && !/\]/) skipping = 1
            next
        }
        { print }
        END { if (!done) { if (name != "server") print "\n[server]"; print line } }' "$config" >"$new"
    if ! "$bin_dir/berth" config --check --config "$new" >/dev/null; then
        rm -f "$new"
        die "$config was left as it is"
    fi
    chmod --reference="$config" "$new"
    mv -f "$new" "$config"
    say "listen = $(listen_toml)"
}

# ---- services -------------------------------------------------------------------------------------

supervisor_unit() {
    # What systemd does by seccomp is inherited by containers, which have a filter of their own, and
    # what it mounts over parts of /proc and /sys makes the kernel refuse them fresh ones: neither is
    # used here. KillMode=process: monitors and containers live in the scope, children finish alone.
    cat <<UNIT
[Unit]
Description=Berth supervisor (owns all privileged work)
Documentation=file://$config
Wants=network.target
After=network.target nftables.service berth-containers.scope
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
ExecStartPre=-/usr/sbin/apparmor_parser --replace --skip-cache $APPARMOR_FILE
ExecStart=$bin_dir/berth-runtime supervise --config $config
ExecStop=$bin_dir/berth-runtime stop-all --config $config
TimeoutStopSec=630
KillMode=process
Restart=always
RestartSec=200ms
OOMScoreAdjust=-900
LimitNOFILE=65536
TasksMax=infinity
UMask=0022
NoNewPrivileges=yes
CapabilityBoundingSet=~CAP_SYS_MODULE CAP_SYS_RAWIO CAP_SYS_BOOT CAP_SYS_TIME CAP_SYS_TTY_CONFIG CAP_WAKE_ALARM CAP_BLOCK_SUSPEND CAP_LEASE CAP_AUDIT_CONTROL CAP_AUDIT_READ CAP_AUDIT_WRITE
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
ReadWritePaths=$data_dir $run_dir

[Install]
WantedBy=multi-user.target
UNIT
}

# Every address of the configuration. Where it is none of loopback's, the socket is made before the
# address is there; one of IPv6 is for IPv6 alone, as the server makes its own.
socket_unit() {
    local addresses address lines='' free='' v6=''
    addresses=$("$bin_dir/berth" config --sockets --config "$config") || die "see above"
    for address in $addresses; do
        lines+="ListenStream=$address"$'\n'
        is_loopback "$address" || free=$'FreeBind=yes\n'
        [[ $address != \[* ]] || v6=$'BindIPv6Only=ipv6-only\n'
    done
    cat <<UNIT
[Unit]
Description=Berth dashboard and API
Documentation=file://$config

[Socket]
$lines$free${v6}Backlog=1024
NoDelay=yes

[Install]
WantedBy=sockets.target
UNIT
}

server_unit() {
    cat <<UNIT
[Unit]
Description=Berth server (dashboard, API, inventory)
Documentation=file://$config
Wants=berth-supervisor.service
Requires=berth.socket
After=berth.socket berth-supervisor.service network.target
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
ExecStart=$bin_dir/berth serve --config $config
ExecReload=/bin/kill -HUP \$MAINPID
User=$user
Group=$user
Restart=always
RestartSec=200ms
TimeoutStopSec=30
OOMScoreAdjust=-500
LimitNOFILE=65536
LimitCORE=0
UMask=0077
CapabilityBoundingSet=
AmbientCapabilities=
NoNewPrivileges=yes
ProtectSystem=strict
ReadWritePaths=$data_dir/db $data_dir/store $run_dir/server $run_dir/local
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
ProtectProc=invisible
ProcSubset=all
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
RemoveIPC=yes
KeyringMode=private
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
UNIT
}

tmpfiles() {
    cat <<CONF
# Berth's live state; see tmpfiles.d(5).
d $run_dir 0711 root root -
d $run_dir/server 0700 $user $user -
CONF
}

# write FILE: standard input to FILE; says whether that changed it by its status (0: changed).
write() {
    local new
    new=$(cat)
    [ ! -e "$1" ] || [ "$(cat "$1")" != "$new" ] || return 1
    printf '%s\n' "$new" >"$1.tmp"
    chmod 644 "$1.tmp"
    mv -f "$1.tmp" "$1"
}

start_units() {
    local socket_changed=
    step "Services (systemd)"
    tmpfiles | write /etc/tmpfiles.d/berth.conf || true
    supervisor_unit | write $UNIT_DIR/berth-supervisor.service || true
    server_unit | write $UNIT_DIR/berth.service || true
    if socket_unit | write $UNIT_DIR/berth.socket; then socket_changed=yes; fi
    systemctl daemon-reload
    # shellcheck disable=SC2086  # three units
    systemctl enable --quiet $UNITS
    # A restart leaves the scope with the containers alone.
    systemctl restart berth-supervisor.service
    if [ -n "$socket_changed" ] || ! systemctl is-active --quiet berth.socket; then
        systemctl stop berth.service
        systemctl restart berth.socket
    fi
    # The socket stays open meanwhile: connections wait instead of being refused.
    systemctl restart berth.service
    # shellcheck disable=SC2086
    systemctl --no-pager --no-legend list-units $UNITS
}

# pid_of NAME: the process of the pid file, if it still is this installation's: by its command line,
# since the supervisor runs from a sealed copy of its program.
pid_of() {
    local pid line
    pid=$(cat "$run_dir/$1.pid" 2>/dev/null) && [ -n "$pid" ] || return 1
    line=$(tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline") || return 1
    [[ $line == "$bin_dir"/berth*" --config $config "* ]] && printf '%s' "$pid"
}

# stop_background NAME: asks, waits, and insists.
stop_background() {
    local pid waited=0
    if pid=$(pid_of "$1"); then
        kill -TERM "$pid" 2>/dev/null || true
        while [ -d "/proc/$pid" ] && [ $waited -lt 150 ]; do sleep 0.1; waited=$((waited + 1)); done
        [ ! -d "/proc/$pid" ] || kill -KILL "$pid" 2>/dev/null || true
    fi
    rm -f "$run_dir/$1.pid"
}

# start_background NAME COMMAND...: in a session of its own, so that no terminal ends it.
start_background() {
    local name=$1; shift
    # Where root may, the kernel is asked to take Berth's own processes last; exec keeps the pid.
    setsid --fork sh -c 'echo -900 2>/dev/null >/proc/self/oom_score_adj
        echo $$ >"$0"; exec "$@"' "$run_dir/$name.pid" "$@" >>"$log_dir/$name.log" 2>&1 </dev/null
}

start_in_background() {
    step "Services (no systemd: in the background, logs in $log_dir)"
    # The server first: nobody is to start containers while the supervisor is away.
    stop_background server
    stop_background supervisor
    start_background supervisor "$bin_dir/berth-runtime" supervise --config "$config"
    wait_for "the supervisor's socket" test -S "$run_dir/supervisor.sock"
    start_background server setpriv --reuid "$user" --regid "$user" --clear-groups --no-new-privs \
        --inh-caps=-all --bounding-set=-all "$bin_dir/berth" serve --config "$config"
}

# wait_for WHAT COMMAND...: until the command succeeds, at most READY_SECS_MAX seconds.
wait_for() {
    local what=$1 deadline=$((SECONDS + READY_SECS_MAX)); shift
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $deadline ] || { show_logs >&2; die "$what: not there after $READY_SECS_MAX s"; }
        sleep 0.05
    done
}

show_logs() {
    if [ -n "$systemd" ]; then
        journalctl --no-pager -n 30 -u berth-supervisor.service -u berth.service || true
    else
        tail -n 15 "$log_dir/supervisor.log" "$log_dir/server.log" 2>/dev/null || true
    fi
}

ready() { api GET /readyz; }

# ---- the API over root's own socket ---------------------------------------------------------------

# api METHOD PATH [CURL OPTION]...: the answer's body; the problem goes to standard error.
api() {
    local method=$1 path=$2 body; shift 2
    body=$(curl --silent --show-error --fail-with-body --max-time 120 --unix-socket "$root_socket" \
        -X "$method" "$@" "http://localhost$path") || {
        printf '%s %s: %s\n' "$method" "$path" "$body" >&2
        return 1
    }
    printf '%s' "$body"
}

# ---- the starter image and the proof --------------------------------------------------------------

# Writes FILE, an OCI image layout in a tar: busybox, its applets as links, and the few files that
# programs expect. The same busybox gives the same bytes.
make_starter() {
    local file=$1 work root layout busybox layer diff_id layer_bytes configuration manifest applet
    busybox=$(command -v busybox)
    work=$(mktemp -d)
    root=$work/root layout=$work/layout
    mkdir -p "$root"/{bin,dev,etc,home,proc,root,sys,tmp,usr/bin,var/tmp} "$layout/blobs/sha256"
    chmod 1777 "$root/tmp" "$root/var/tmp"
    chmod 700 "$root/root"
    install -m 755 "$busybox" "$root/bin/busybox"
    "$busybox" --list | while read -r applet; do
        [ "$applet" = busybox ] || ln -s busybox "$root/bin/$applet"
    done
    printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n' >"$root/etc/passwd"
    printf 'root:x:0:\nnogroup:x:65534:\n' >"$root/etc/group"
    tar --create --file "$work/layer.tar" --directory "$root" --format=pax --sort=name --mtime=@0 \
        --pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime \
        --owner=0 --group=0 --numeric-owner .
    diff_id=$(digest_of "$work/layer.tar")
    gzip --no-name --best "$work/layer.tar"
    layer=$(add_blob "$layout" "$work/layer.tar.gz")
    layer_bytes=$(stat -c %s "$work/layer.tar.gz")
    jq -cn --arg diff_id "sha256:$diff_id" --arg arch "$(image_architecture)" '{
        created: "1970-01-01T00:00:00Z", architecture: $arch, os: "linux",
        config: {Env: ["PATH=/bin:/usr/bin"], Cmd: ["/bin/sh"], WorkingDir: "/"},
        rootfs: {type: "layers", diff_ids: [$diff_id]},
        history: [{created: "1970-01-01T00:00:00Z", created_by: "Berth installer: busybox-static"}]
        }' >"$work/config.json"
    configuration=$(add_blob "$layout" "$work/config.json")
    jq -cn --arg config "sha256:$configuration" --arg layer "sha256:$layer" \
        --argjson config_bytes "$(stat -c %s "$work/config.json")" \
        --argjson layer_bytes "$layer_bytes" '{
        schemaVersion: 2, mediaType: "application/vnd.oci.image.manifest.v1+json",
        config: {mediaType: "application/vnd.oci.image.config.v1+json", digest: $config,
                 size: $config_bytes},
        layers: [{mediaType: "application/vnd.oci.image.layer.v1.tar+gzip", digest: $layer,
                  size: $layer_bytes}]}' >"$work/manifest.json"
    manifest=$(add_blob "$layout" "$work/manifest.json")
    jq -cn --arg digest "sha256:$manifest" --arg name "$STARTER_TAG" \
        --argjson bytes "$(stat -c %s "$work/manifest.json")" '{
        schemaVersion: 2, mediaType: "application/vnd.oci.image.index.v1+json",
        manifests: [{mediaType: "application/vnd.oci.image.manifest.v1+json", digest: $digest,
            size: $bytes, annotations: {"org.opencontainers.image.ref.name": $name}}]
        }' >"$layout/index.json"
    printf '{"imageLayoutVersion":"1.0.0"}' >"$layout/oci-layout"
    tar --create --file "$file" --directory "$layout" --sort=name --mtime=@0 --owner=0 --group=0 \
        --numeric-owner oci-layout index.json blobs
    rm -rf "$work"
}

digest_of() { sha256sum "$1" | cut -d' ' -f1; }

# add_blob LAYOUT FILE: copies the file under its digest and prints that.
add_blob() {
    local digest
    digest=$(digest_of "$2")
    cp "$2" "$1/blobs/sha256/$digest"
    printf '%s' "$digest"
}

image_architecture() {
    case $(uname -m) in
        x86_64) printf amd64 ;;
        aarch64) printf arm64 ;;
        *) uname -m ;;
    esac
}

# wait_operation ID: until it has ended; fails when it did not succeed.
wait_operation() {
    local operation status deadline=$((SECONDS + 120))
    while [ $SECONDS -lt $deadline ]; do
        operation=$(api GET "/api/v1/operations/$1") || return 1
        status=$(jq -r .state <<<"$operation")
        case $status in
            succeeded) return 0 ;;
            failed | cancelled | interrupted) say "$operation" >&2; return 1 ;;
        esac
        sleep 0.1
    done
    return 1
}

import_starter() {
    local tar answer operation
    tar=$(mktemp)
    make_starter "$tar"
    answer=$(api POST "/api/v1/images/import" -H 'Content-Type: application/x-tar' \
        --data-binary "@$tar") || { rm -f "$tar"; return 1; }
    rm -f "$tar"
    operation=$(jq -r '.id // empty' <<<"$answer")
    [ -z "$operation" ] || wait_operation "$operation"
}

remove_proof() { api DELETE "/api/v1/containers/$PROOF_NAME?force=true" >/dev/null 2>&1 || true; }

# The container's own cgroup file for memory, from its first process on v2 or v1.
memory_file() {
    local pid=$1 path
    if path=$(awk -F: '$2 == "memory" { print $3; found = 1 } END { exit !found }' "/proc/$pid/cgroup"); then
        printf '/sys/fs/cgroup/memory%s/memory.limit_in_bytes' "$path"
    else
        path=$(sed -n 's/^0:://p' "/proc/$pid/cgroup")
        printf '/sys/fs/cgroup%s/memory.max' "$path"
    fi
}

prove() {
    local record began shown output file limit bytes=$((64 * 1024 * 1024))
    step "Proof: a limited container from the starter image"
    import_starter || { show_logs >&2; die "the starter image could not be imported"; }
    remove_proof
    began=$(date +%s%N)
    record=$(api POST /api/v1/containers -H 'Content-Type: application/json' -d "$(
        jq -n --arg name $PROOF_NAME --arg image $STARTER_TAG --argjson bytes $bytes '{
            name: $name, image: $image, start: true,
            command: ["sh", "-c",
                "echo Hello from process $$, user $(id -u), on $(hostname); sleep 600"],
            limits: {cpu_millis: 250, memory_bytes: $bytes, swap_bytes: 0, pids: 32}}')") ||
        die "the container could not be made"
    shown=$((($(date +%s%N) - began) / 1000000))
    if [ "$(jq -r .status <<<"$record")" != running ]; then
        show_logs >&2
        remove_proof
        die "the container does not run: $(jq -r .status_text <<<"$record")"
    fi
    wait_for "the container's output" has_output
    output=$(api GET "/api/v1/containers/$PROOF_NAME/logs" | head -1)
    file=$(memory_file "$(jq -r .pid <<<"$record")")
    limit=$(cat "$file")
    say "output:  $output"
    say "limit:   $limit bytes of memory ($file)"
    say "time:    $shown ms from request to running"
    remove_proof
    [ "$limit" = $bytes ] || die "the kernel holds $limit bytes, not the $bytes that were asked for"
}

has_output() { api GET "/api/v1/containers/$PROOF_NAME/logs" | grep -q Hello; }

# The secret that makes the first operator; not made again once there is one.
setup_secret() {
    local secret
    if [ "$(api GET /api/v1/setup | jq -r .needed)" != true ]; then
        rm -f "$secret_file"
        say "Set up already: sign in."
        return
    fi
    secret=$(api POST /api/v1/setup/secret | jq -r .secret)
    [ ${#secret} -ge 16 ] || die "the server gave no setup secret"
    rm -f "$secret_file"
    (umask 077 && printf '%s\n' "$secret" >"$secret_file")
    say "Setup secret, good for the first operator only (also in $secret_file):"
    say "    $secret"
}

# ---- AppArmor -------------------------------------------------------------------------------------

# Only for the host's own installation: the kernel has one list of profiles.
apparmor_is_on() {
    [ -z "$prefix" ] && [ "$(cat /sys/module/apparmor/parameters/enabled 2>/dev/null)" = Y ]
}

# What a container may do, beside what namespaces, capabilities and seccomp leave it: everything inside,
# but no mount, and no look at what /proc and /sys tell of the host. It may trace and signal its own kind
# only, and is entered with no_new_privs on.
apparmor_profile() {
    cat <<'PROFILE'
# Berth's containers; written by its installer, see apparmor.d(5).
profile berth-container flags=(attach_disconnected,mediate_deleted) {
  network,
  capability,
  file,

  signal (receive) peer=unconfined,
  signal (send, receive) peer=berth-container,
  ptrace (trace, read, tracedby, readby) peer=berth-container,

  deny mount,
  deny remount,
  deny pivot_root,

  deny /proc/*  w,
  deny /proc/[0-9]*/attr/** w,
  deny /proc/sys/** wkl,
  deny /proc/{acpi,bus,fs,irq,scsi}{,/**} wkl,
  deny /proc/{kcore,kallsyms,kmsg,modules,iomem,ioports,slabinfo,vmallocinfo,config.gz} rwkl,
  deny /proc/{kpagecgroup,kpagecount,kpageflags,timer_list,sched_debug,latency_stats} rwkl,
  deny /proc/sysrq-trigger rwkl,

  deny /sys/** wkl,
  deny /sys/kernel/{security,debug,tracing}{,/**} rwkl,
  deny /sys/firmware{,/**} rwkl,
}
PROFILE
}

load_apparmor() {
    apparmor_is_on || return 0
    step "AppArmor profile $APPARMOR_PROFILE"
    if ! command -v apparmor_parser >/dev/null && command -v apt-get >/dev/null; then
        # Without it containers have one fence fewer: no reason not to install.
        apt_install apparmor || true
    fi
    if ! command -v apparmor_parser >/dev/null; then
        say "apparmor_parser is not there: containers run without the profile"
        return 0
    fi
    install -d -m 755 /etc/apparmor.d
    apparmor_profile | write $APPARMOR_FILE || true
    apparmor_parser --replace --skip-cache $APPARMOR_FILE ||
        say "the profile could not be loaded: containers run without it"
}

unload_apparmor() {
    [ -z "$prefix" ] && [ -e $APPARMOR_FILE ] || return 0
    apparmor_parser --remove $APPARMOR_FILE 2>/dev/null || true
    rm -f $APPARMOR_FILE
}

# Every address as one opens it, and what to compare when the browser warns.
addresses() {
    local name
    name=$(hostname)
    "$bin_dir/berth" config --urls --config "$config" | sed "s,//0\.0\.0\.0:,//$name:,;s,//\[::\]:,//$name:," | sort -u
    case $("$bin_dir/berth" config --urls --config "$config") in
        *https:*) "$bin_dir/berth" certificate --config "$config" ;;
    esac
}

doctor() {
    step "Doctor"
    "$bin_dir/berth" doctor --config "$config"
}

install_all() {
    [ "$(id -u)" = 0 ] || die "run this as root (sudo)"
    install_packages
    if [ -n "$configure" ]; then
        [ -x "$bin_dir/berth" ] || die "$bin_dir/berth is not there: install first, without --configure"
    else
        [ -n "$from" ] || build
        install_programs
        install_manual
    fi
    install_config
    install_user
    "$bin_dir/berth" config --check --config "$config" || die "mend it, then run this again"
    install_folders
    load_apparmor
    if [ -n "$systemd" ]; then start_units; else start_in_background; fi
    wait_for "the server" ready
    doctor || die "Berth cannot run on this host: see above"
    prove
    step "Ready"
    addresses
    setup_secret
}

# ---- check and uninstall --------------------------------------------------------------------------

check() {
    local missing program status=0
    step "What an installation would do here"
    read -ra missing <<<"$(missing_packages)"
    [ ${#missing[@]} = 0 ] || say "install packages: ${missing[*]}"
    if [ -n "$from" ]; then
        say "take the programs from $from"
    elif program=$(find_cargo); then
        say "build with $("$program" --version)"
    elif program=$(cargo_packages); then
        say "install a compiler ($program) and build"
    else
        say "lacking: Rust 1.$RUST_MINOR_MIN or newer (https://rustup.rs), or programs for --from DIR"
        status=1
    fi
    for program in berth berth-runtime; do
        if [ -e "$bin_dir/$program" ]; then say "replace $bin_dir/$program"; else say "write $bin_dir/$program"; fi
    done
    if [ -e "$config" ]; then say "keep $config"; else say "write $config"; fi
    getent passwd "$user" >/dev/null || say "create the user $user"
    say "keep data in $data_dir, listen on ${listen[*]}"
    if [ -n "$systemd" ]; then say "run as systemd units: $UNITS"; else say "run in the background (no systemd)"; fi
    for program in "$from" "$bin_dir" "$HERE/target/release"; do
        if [ -z "$program" ] || [ ! -x "$program/berth" ]; then continue; fi
        step "Doctor"
        "$program/berth" doctor || status=1
        return $status
    done
    say "(berth doctor runs once the program is there)"
    return $status
}

uninstall() {
    [ "$(id -u)" = 0 ] || die "run this as root (sudo)"
    step "Containers and services"
    # The server first: nobody restarts what is being stopped.
    if [ -n "$systemd" ]; then
        systemctl disable --now --quiet berth.socket berth.service 2>/dev/null || true
    fi
    stop_background server
    if [ -x "$bin_dir/berth-runtime" ] && [ -e "$config" ] && [ -d "$run_dir" ]; then
        "$bin_dir/berth-runtime" stop-all --now --config "$config" || say "not every container could be stopped"
    fi
    if [ -n "$systemd" ]; then
        systemctl disable --now --quiet berth-supervisor.service 2>/dev/null || true
        systemctl stop --quiet berth-containers.scope berth.slice 2>/dev/null || true
        rm -f $UNIT_DIR/berth-supervisor.service $UNIT_DIR/berth.socket $UNIT_DIR/berth.service \
            /etc/tmpfiles.d/berth.conf
        systemctl daemon-reload
        systemctl reset-failed --quiet 'berth*' 2>/dev/null || true
    fi
    stop_background supervisor
    remove_cgroups
    unload_apparmor
    rm -f "$bin_dir/berth" "$bin_dir/berth-runtime"
    remove_manual
    unmount_disks
    rm -rf "$run_dir"
    if [ -n "$purge" ]; then
        purge
    else
        say "Removed. Data stays in $data_dir, the configuration in $config_dir."
    fi
}

# People's own file systems; what they hold stays in their files.
unmount_disks() {
    local place
    for place in "$run_dir"/disks/*; do
        ! mountpoint -q "$place" || umount "$place" || umount --lazy "$place" || true
    done
}

# Without systemd the instance's cgroups are plain directories, one a hierarchy; only empty ones go.
remove_cgroups() {
    local top
    for top in /sys/fs/cgroup/"$instance" /sys/fs/cgroup/*/"$instance"; do
        [ ! -d "$top" ] || find "$top" -depth -type d -exec rmdir {} \; 2>/dev/null || true
    done
}

purge() {
    local folder
    step "Data"
    # By name: the folder may hold what is not ours.
    for folder in db store layers people state; do rm -rf "${data_dir:?}/$folder"; done
    rmdir --ignore-fail-on-non-empty "$data_dir" 2>/dev/null || true
    rm -f "$config" "$config.new" "$config_dir/.berth.toml.sha256" "$secret_file"
    rmdir --ignore-fail-on-non-empty "$config_dir" 2>/dev/null || true
    rm -f "$log_dir"/*.log
    rmdir --ignore-fail-on-non-empty "$log_dir" 2>/dev/null || true
    # Only a user that looks like the one made above.
    if [ "$(getent passwd "$user" | cut -d: -f5)" = "Berth server" ]; then userdel "$user"; fi
    say "Removed, with all data, configuration and the user."
}

main() {
    parse_arguments "$@"
    locate
    case $action in
        install) install_all ;;
        check) check ;;
        uninstall) uninstall ;;
        print_config) print_config ;;
    esac
}

main "$@"
