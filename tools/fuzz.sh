#!/bin/sh
# The long run of the fuzzers: every target for so many minutes, two at a time.
#
#   tools/fuzz.sh [--minutes 10] [--jobs 2] [--keep] [TARGET...]
#
# Needs a C++ compiler for libFuzzer, and nothing else: the stable toolchain does. Ends with a line
# for each target, and non-zero where one found something; the input then lies in
# target/fuzz/found/TARGET and is run again by `cargo run -p fuzz-targets -- run TARGET FILE`.
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
[ -n "$targets" ] || targets=$(cargo run --quiet -p fuzz-targets -- names)

RUSTC_WORKSPACE_WRAPPER="$PWD/tools/fuzz-rustc.sh" \
    cargo build --release -p fuzz-targets --features libfuzzer --bin libfuzzer
# Other builds put a program of the same name there.
home=target/fuzz
program=$home/libfuzzer
logs=$home/logs
mkdir -p "$logs"
cp target/release/libfuzzer "$program"

# An input may take the whole process to so many MiB (the targets' own bounds are far closer), and
# so many seconds.
run_one() {
    target=$1
    mkdir -p "$home/corpus/$target" "$home/found/$target"
    FUZZ_TARGET=$target "$program" "$home/corpus/$target" "tools/fuzz-targets/corpus/$target" \
        -max_total_time=$((minutes * 60)) -max_len=16384 -timeout=20 \
        -rss_limit_mb=1536 -detect_leaks=0 -artifact_prefix="$home/found/$target/" \
        -print_final_stats=1 -verbosity=1 \
        >"$logs/$target" 2>&1 || echo "FOUND $?" >>"$logs/$target"
}

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
        FUZZ_TARGET=$target "$program" -merge=1 -use_counters=0 -max_len=4096 -detect_leaks=0 \
            "$kept.new" "$kept" "$home/corpus/$target" >"$logs/$target.merge" 2>&1
        rm -rf "$kept"
        mv "$kept.new" "$kept"
    done
    du -sh tools/fuzz-targets/corpus
fi
exit $found
