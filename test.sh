#!/bin/sh
# Runs every test of a clone: installs what the tests need where it is missing, then cargo test.
# For Debian 12 or newer with Rust; root (or sudo) is needed only to install.
set -eu
cd "$(dirname "$0")"

# What is missing, package by package; nothing is asked of the network when all is there.
missing=""
command -v redis-cli >/dev/null && command -v redis-benchmark >/dev/null ||
    missing="$missing redis-tools"
command -v cc >/dev/null || missing="$missing build-essential"
command -v python3 >/dev/null || missing="$missing python3"
# `python3 -m venv` is there without ensurepip on Debian, and then fails half-way.
python3 -c 'import ensurepip, venv' 2>/dev/null || missing="$missing python3-venv"
if [ -n "$missing" ]; then
    as_root=""
    [ "$(id -u)" = 0 ] || as_root="sudo"
    echo "installing$missing"
    $as_root apt-get update -qq
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -qq --no-install-recommends \
        $missing >/dev/null
fi

# redis-py is newer on PyPI than in Debian; what users install is what is tested. moto is the S3
# that the archive is tested with.
if ! .venv/bin/python -c 'import redis, moto.server' 2>/dev/null; then
    rm -rf .venv
    python3 -m venv .venv
    .venv/bin/pip install --quiet 'redis>=5,<9' 'moto[server]>=5,<6'
fi

# A test that was named is wanted alone; else the simulator's seeds come first, then every test.
if [ $# = 0 ]; then
    cargo run --quiet --release -p tools -- simulate --seeds 1000 --seconds 20
fi
exec cargo test --workspace "$@"
