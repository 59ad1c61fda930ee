#!/usr/bin/env bash
# Installs what building needs and is missing: Debian packages (as root; otherwise it prints the line), and with
# the argument `fuzz` also cargo-fuzz.
set -euo pipefail
cd "$(dirname "$0")/.."

# clang and libclang read RocksDB's headers, g++ compiles it; libssl-dev is for SQLCipher.
readonly NEEDED=(clang libclang-dev g++ make pkg-config libssl-dev)
# ccache makes every build of RocksDB after the first a matter of a minute.
# The tests cut the power of disks of their own: xfsprogs does it, e2fsprogs, util-linux and mount make and mount
# them. With iproute2 they lay a cable of their own. Without any of these such a test says that it shows nothing.
readonly USEFUL=(ccache xfsprogs e2fsprogs util-linux mount iproute2)
readonly RUST_MIN=1.95

say() { printf 'setup: %s\n' "$*" >&2; }

die() {
    say "$@"
    exit 1
}

missing_packages() {
    local package
    for package in "$@"; do
        # The one installed may be a provider of another version, such as clang-19 for clang.
        [[ "$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null)" == installed ]] ||
            echo "$package"
    done
}

install_packages() {
    if ! command -v dpkg-query >/dev/null; then
        command -v clang >/dev/null && command -v c++ >/dev/null && command -v pkg-config >/dev/null ||
            die "this is no Debian: install clang with libclang, a C++ compiler, make, pkg-config and OpenSSL's headers"
        return
    fi
    local needed useful
    mapfile -t needed < <(missing_packages "${NEEDED[@]}")
    mapfile -t useful < <(missing_packages "${USEFUL[@]}")
    if ((${#needed[@]} + ${#useful[@]} == 0)); then
        return
    fi
    if ((EUID == 0)); then
        say "installing ${needed[*]} ${useful[*]}"
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends \
            "${needed[@]}" "${useful[@]}" >/dev/null
    elif ((${#needed[@]} > 0)); then
        die "packages are missing; install them with:
  sudo apt-get install -y ${needed[*]} ${useful[*]}"
    else
        say "not installed: ${useful[*]} (ccache makes later builds much faster; the others are for proofs with disks and
  networks of their own, which do not run without): sudo apt-get install -y ${useful[*]}"
    fi
}

check_rust() {
    command -v cargo >/dev/null || die "Rust is missing; install it with:
  curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y
and open a new shell"
    local found
    found=$(rustc --version | cut -d' ' -f2)
    [[ "$(printf '%s\n' "$RUST_MIN" "$found" | sort -V | head -n1)" == "$RUST_MIN" ]] ||
        die "Rust $found is too old, $RUST_MIN is needed: rustup update stable"
    local component
    for component in rustfmt clippy; do
        cargo "${component/rustfmt/fmt}" --version >/dev/null 2>&1 || rustup component add "$component" ||
            die "$component is missing: rustup component add $component"
    done
}

install_fuzz() {
    cargo fuzz --version >/dev/null 2>&1 && return
    say "installing cargo-fuzz"
    cargo install cargo-fuzz --locked --quiet
}

install_packages
check_rust
if [[ "${1:-}" == fuzz ]]; then
    install_fuzz
fi
