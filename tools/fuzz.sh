#!/bin/sh
# The long run of the fuzzers: every target for so many minutes, two at a time.
#
#   tools/fuzz.sh [--minutes 10] [--jobs 2] [--keep] [TARGET...]
#
# Needs cargo-fuzz (`cargo install cargo-fuzz --locked`) and a C++ compiler; no nightly toolchain.
# Ends with a line per target and non-zero where one found something; the input then lies in
# fuzz/artifacts/TARGET and is run again by `cargo run -p fuzz-targets -- run TARGET FILE`.
# With --keep the kept corpus (tools/fuzz-targets/corpus) is afterwards made anew: the fewest and
# shortest inputs that reach all that was reached.
set -eu
cd "$(dirname "$0")/.."

minutes=10
jobs=2
keep=""
targets=""
while [ $# -gt 0 ]; do
    case "$1" in
        --minutes) minutes="$2"; shift ;;
        --jobs) jobs="$2"; shift ;;
        --keep) keep=yes ;;
        -*) sed -n '2,11p' "$0"; exit 2 ;;
        *) targets="$targets $1" ;;
    esac
    shift
done
command -v cargo-fuzz >/dev/null || {
    echo "cargo-fuzz is missing: cargo install cargo-fuzz --locked" >&2
    exit 2
}
[ -n "$targets" ] || targets=$(cargo run --quiet -p fuzz-targets -- names)

# The sanitizer and its coverage are flags that a stable compiler takes only when told so.
for target in $targets; do
    RUSTC_BOOTSTRAP=1 cargo fuzz build "$target"
done
host=$(rustc -vV | sed -n 's/^host: //p')
programs=fuzz/target/$host/release
logs=fuzz/target/logs
mkdir -p "$logs"

# No input is longer than MAX bytes; none may take the process beyond RSS or one allocation beyond
# MALLOC mebibytes (the targets' own bounds are far closer), or longer than TIMEOUT seconds.
run_one() {
    target=$1
    mkdir -p "fuzz/corpus/$target" "fuzz/artifacts/$target"
    "$programs/$target" "fuzz/corpus/$target" "tools/fuzz-targets/corpus/$target" \
        -max_total_time=$((minutes * 60)) -max_len=16384 -timeout=20 \
        -rss_limit_mb=1536 -malloc_limit_mb=512 \
        -artifact_prefix="fuzz/artifacts/$target/" -print_final_stats=1 \
        >"$logs/$target" 2>&1 || echo "FOUND $?" >>"$logs/$target"
}

export ASAN_OPTIONS="detect_odr_violation=0:allocator_may_return_null=1"
running=0
for target in $targets; do
    run_one "$target" &
    running=$((running + 1))
    if [ "$running" -ge "$jobs" ]; then
        wait
        running=0
    fi
done
wait

found=0
printf '%-14s %12s %8s %8s %8s %9s  %s\n' target executions edges features inputs 'peak MiB' result
for target in $targets; do
    log="$logs/$target"
    executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log" | tail -1)
    peak=$(sed -n 's/^stat::peak_rss_mb: *//p' "$log" | tail -1)
    line=$(grep ' cov: ' "$log" | tail -1)
    edges=$(echo "$line" | sed -n 's/.* cov: \([0-9]*\).*/\1/p')
    features=$(echo "$line" | sed -n 's/.* ft: \([0-9]*\).*/\1/p')
    inputs=$(echo "$line" | sed -n 's/.* corp: \([0-9]*\).*/\1/p')
    result=nothing
    if grep -q '^FOUND ' "$log"; then
        result="FOUND, see $log"
        found=1
    fi
    printf '%-14s %12s %8s %8s %8s %9s  %s\n' "$target" "${executions:-?}" "${edges:-?}" \
        "${features:-?}" "${inputs:-?}" "${peak:-?}" "$result"
done

if [ -n "$keep" ]; then
    for target in $targets; do
        kept=tools/fuzz-targets/corpus/$target
        rm -rf "$kept.new"
        mkdir -p "$kept.new" "$kept"
        "$programs/$target" -merge=1 -max_len=4096 "$kept.new" "$kept" "fuzz/corpus/$target" \
            >"$logs/$target.merge" 2>&1
        rm -rf "$kept"
        mv "$kept.new" "$kept"
    done
    du -sh tools/fuzz-targets/corpus
fi
exit $found
