#!/usr/bin/env bash
# Brings up what the tests can use beside Python: Docker, Redis, a browser, and the base image of the container tests.
#
# Starts only what does not answer yet and stops nothing. Without root and apt it says what is missing and leaves the
# tests to skip; with CI=true a missing service is an error. A second run finds everything in place and takes a second.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

STATE=${SWEEP_SERVICES_DIR:-/var/tmp/sweep-services}   # logs and pid files of what this script starts
WAIT_S=60                                              # how long a service may take to answer
missing=()

say() { printf 'services: %s\n' "$*"; }
lacks() { say "missing: $*"; missing+=("$1"); }
can_install() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }

# wanted command -> Debian package
install_packages() {
    local wanted="redis-server:redis-server dockerd:docker.io debootstrap:debootstrap chromium:chromium chromedriver:chromium-driver
                  ip:iproute2 iptables:iptables faketime:faketime git:git zsh:zsh fish:fish"
    local packages=() entry
    for entry in $wanted; do
        PATH="$PATH:/usr/sbin:/sbin" command -v "${entry%%:*}" >/dev/null || packages+=("${entry#*:}")
    done
    [ ${#packages[@]} -gt 0 ] || return 0
    if ! can_install; then
        for entry in "${packages[@]}"; do lacks "$entry" "(needs root and apt to be installed)"; done
        return 0
    fi
    say "installing ${packages[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq || say "apt-get update failed; going on with the lists at hand"
    apt-get install -y -qq --no-install-recommends "${packages[@]}" >"$STATE/apt.log" 2>&1 || {
        tail -n 20 "$STATE/apt.log" >&2
        for entry in "${packages[@]}"; do lacks "$entry" "(apt-get failed; see $STATE/apt.log)"; done
    }
}

# wait_for SECONDS COMMAND...: until the command succeeds
wait_for() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $deadline ] || return 1
        sleep 0.2
    done
}

docker_answers() { timeout 10 docker info >/dev/null 2>&1; }

# With cgroup v1 each controller is its own mount; a machine that booted without an init system may have none.
mount_cgroups() {
    mountpoint -q /sys/fs/cgroup && return 0
    mount -t cgroup2 none /sys/fs/cgroup 2>/dev/null || say "no cgroups could be mounted; limits of containers will not hold"
}

start_docker() {
    if docker_answers; then
        say "docker answers"
        return 0
    fi
    if ! PATH="$PATH:/usr/sbin" command -v dockerd >/dev/null; then
        lacks docker "(dockerd is not installed)"
        return 0
    fi
    if [ "$(id -u)" != 0 ]; then
        lacks docker "(does not answer, and only root can start it)"
        return 0
    fi
    mount_cgroups
    local log=$STATE/dockerd.log
    say "starting dockerd, log in $log"
    # A pid file left by a killed daemon would keep a new one from starting once its number is used again.
    if [ -f /var/run/docker.pid ] && ! grep -qs dockerd "/proc/$(cat /var/run/docker.pid)/comm"; then rm -f /var/run/docker.pid; fi
    PATH="$PATH:/usr/sbin:/sbin" setsid dockerd >"$log" 2>&1 </dev/null &
    echo $! >"$STATE/dockerd.pid"
    if ! wait_for "$WAIT_S" docker_answers; then
        tail -n 20 "$log" >&2
        lacks docker "(did not answer within $WAIT_S s; see $log)"
    fi
}

redis_answers() { [ "$(timeout 2 redis-cli -h 127.0.0.1 -p 6379 ping 2>/dev/null)" = PONG ]; }

start_redis() {
    if ! command -v redis-server >/dev/null; then
        lacks redis "(redis-server is not installed)"
        return 0
    fi
    if redis_answers; then
        say "redis answers on 127.0.0.1:6379"
        return 0
    fi
    say "starting redis-server on 127.0.0.1:6379, log in $STATE/redis.log"
    # noeviction: a broker must not forget messages; nothing is saved: it carries wake-ups only.
    setsid redis-server --bind 127.0.0.1 --port 6379 --dir "$STATE" --save '' --appendonly no \
        --maxmemory-policy noeviction >"$STATE/redis.log" 2>&1 </dev/null &
    echo $! >"$STATE/redis.pid"
    wait_for "$WAIT_S" redis_answers || lacks redis "(did not answer; see $STATE/redis.log)"
}

check_browser() {
    command -v chromium >/dev/null && command -v chromedriver >/dev/null || lacks browser "(chromium and chromedriver)"
}

build_base_image() {
    docker_answers || return 0
    [ "$(id -u)" = 0 ] || { docker image inspect sweep-base >/dev/null 2>&1 || lacks base-image "(only root can build it)"; return 0; }
    bash deploy/base_image.sh || lacks base-image "(deploy/base_image.sh failed)"
}

mkdir -p "$STATE"
install_packages
start_docker
start_redis
check_browser
build_base_image

if [ ${#missing[@]} -eq 0 ]; then
    say "all there"
elif [ "${CI:-}" = true ]; then
    say "in CI everything must be there; missing: ${missing[*]}"
    exit 1
else
    say "the tests that need ${missing[*]} will be skipped"
fi
