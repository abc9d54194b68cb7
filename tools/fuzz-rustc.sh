#!/bin/sh
# The compiler for the fuzzers' long run: tells libFuzzer which code an input reaches and what it
# compares, and checks arithmetic as tests do. Cargo calls it for this workspace's own crates only
# (RUSTC_WORKSPACE_WRAPPER), so what they depend on is compiled once, as ever. `"$1"` is rustc.
exec "$@" \
    -C passes=sancov-module \
    -C llvm-args=-sanitizer-coverage-level=4 \
    -C llvm-args=-sanitizer-coverage-inline-8bit-counters \
    -C llvm-args=-sanitizer-coverage-pc-table \
    -C llvm-args=-sanitizer-coverage-trace-compares \
    -C overflow-checks=on \
    -C debug-assertions=on
