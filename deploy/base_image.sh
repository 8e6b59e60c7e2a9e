#!/bin/sh
# Makes the image that the container examples and tests use, sweep-base:latest, without an image registry:
# a minimal Debian with Python, from the mirror that this machine's own apt uses. Run as root.
# The packed root file system is kept, so that a second engine or a wiped one gets it in seconds.
set -eu

name=${1:-sweep-base:latest}
suite=${SWEEP_BASE_SUITE:-bookworm}
cache=${SWEEP_CACHE:-.cache}
archive=$cache/sweep-base-$suite.tar

if docker image inspect "$name" >/dev/null 2>&1; then
    echo "$name is here already"
    exit 0
fi

# The first archive that apt itself would ask for packages of this suite, with credentials and all left to apt.
mirror_of_this_machine() {
    apt-get indextargets --format '$(CREATED_BY) $(RELEASE) $(SITE)' |
        awk -v suite="$suite" '$1 == "Packages" && $2 == suite { print $3; exit }'
}

if [ ! -s "$archive" ]; then
    mirror=$(mirror_of_this_machine)
    if [ -z "$mirror" ]; then
        echo "apt on this machine knows no archive for $suite; set SWEEP_BASE_SUITE to one that it knows" >&2
        exit 1
    fi
    mkdir -p "$cache"
    root=$(mktemp -d)
    trap 'rm -rf "$root" "$archive.part"' EXIT
    debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates "$suite" "$root" "$mirror"
    # Commands in sweep files say `python`.
    ln -sf python3 "$root/usr/bin/python"
    rm -rf "$root/var/cache/apt/archives" "$root/var/lib/apt/lists"
    # The machine's own mirror has no place in an image that may be passed on.
    : >"$root/etc/apt/sources.list"
    tar -C "$root" -cf "$archive.part" .
    mv "$archive.part" "$archive"
fi
docker import --change 'CMD ["/bin/sh"]' "$archive" "$name"
