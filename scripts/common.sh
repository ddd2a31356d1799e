# Shared by scripts/run and scripts/test: where things are, and what must be installed.
# Sourced, not run.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"

# What a build needs beside the Rust toolchain: glommio compiles a small liburing with the C
# compiler (its build script also calls git), mimalloc is C.
build_packages=(gcc libc6-dev git ca-certificates)
# What the tests start.
test_packages=(
    redis-server ffmpeg srt-tools util-linux valgrind
    gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-good
    gstreamer1.0-plugins-bad gstreamer1.0-plugins-ugly gstreamer1.0-libav
)

say() { printf '\033[1m%s\033[0m\n' "$*" >&2; }

find_cargo() {
    cargo=${CARGO:-}
    if [[ -z $cargo ]]; then
        if command -v cargo >/dev/null; then
            cargo=cargo
        elif [[ -x $HOME/.cargo/bin/cargo ]]; then
            cargo=$HOME/.cargo/bin/cargo
        else
            echo "no cargo found: install the Rust toolchain first (https://rustup.rs)" >&2
            exit 1
        fi
    fi
    target_dir=${CARGO_TARGET_DIR:-$root/target}
}

as_root() {
    if [[ $(id -u) -eq 0 ]]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        echo "not root and no sudo: cannot run: $*" >&2
        return 1
    fi
}

installed() { [[ $(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null) == installed ]]; }

# Installs those of the named Debian packages that are missing; starts no service.
need_packages() {
    if ! command -v apt-get >/dev/null; then
        echo "no apt-get here; this needs what Debian calls: $*" >&2
        return 0
    fi
    local missing=() package policy=/usr/sbin/policy-rc.d made=
    for package in "$@"; do
        installed "$package" || missing+=("$package")
    done
    [[ ${#missing[@]} -gt 0 ]] || return 0
    say "installing: ${missing[*]}"
    # Debian's own way to keep packages from starting their daemons (redis-server would).
    if [[ ! -e $policy ]]; then
        printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
        as_root chmod 755 "$policy"
        made=yes
    fi
    local failed=
    as_root apt-get update -q || true
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends \
        "${missing[@]}" || failed=yes
    [[ -z $made ]] || as_root rm -f "$policy"
    if [[ -n $failed ]]; then
        echo "could not install: ${missing[*]}" >&2
        return 1
    fi
}
