#!/bin/sh
# Measures all that docs/benchmarks.md shows, one command after the other, and prints it as Markdown.
# Takes about an hour and a half; nothing else should run on the machine meanwhile, and
# tools/peers.sh should have been run before.
#
#     tools/figures.sh [OPTION of bench ...] > figures.md
#     RUNS=1 EACH=1 tools/figures.sh --dir /mnt/disk      quick, to see that all of it works
set -eu
cd "$(dirname "$0")/.."
runs=${RUNS:-5}
each=${EACH:-5}

cargo build --quiet --release --package standfast --package tools --bins
target=${CARGO_TARGET_DIR:-target}/release

options="$*"
bench() {
    printf '\n    bench %s\n\n' "$*"
    # shellcheck disable=SC2086
    "$target/tools" bench "$@" --binary "$target/standfast" $options 2>>figures.log |
        sed '/^CPU.op: /d'
}
ledger() { bench ledger --runs "$runs" --seconds "$each" "$@"; }

printf '## Transfers in batches\n'
ledger --copies 3 --accounts 10000,1000000
ledger --copies 2
ledger --copies 1 --accounts 10000,1000000
ledger --copies 3 --skew hot
ledger --copies 3 --skew zipf
ledger --copies 3 --mix two-phase

printf '\n## Transfers one at a time\n'
ledger --copies 3 --batch 1 --connections 16 --depth 1
ledger --copies 3 --face words --batch 1 --connections 1 --depth 1
ledger --copies 3 --face words --batch 16 --connections 50 --depth 1

printf '\n## A fault at 70 %% of the maximum\n'
ledger --copies 3 --fault kill --victim backup
ledger --copies 3 --fault pause --victim backup
ledger --copies 3 --fault snapshot --victim primary
ledger --copies 3 --fault kill --victim primary
ledger --copies 3 --fault pause --victim primary

printf '\n## Growth\n'
ledger --copies 1 --accounts 100000,1000000,10000000
ledger --copies 1 --prefill 1000000,10000000,50000000

printf '\n## Beside other systems\n'
bench compare --runs "$runs" --seconds "$each"

printf '\n## Memory, start, restore\n'
bench startup --runs "$runs" --keys 5000000
bench startup --runs "$runs" --accounts 10000000 --transfers 10000000
bench restore --runs "$runs" --keys 5000000 --commands 5000000 --compare
bench restore --runs "$runs" --accounts 1000000 --transfers 10000000

printf '\n## Failover\n'
bench failover
