#!/usr/bin/env bash
# Runs fuzz targets one after the other, each for so many seconds, and ends with a line for each: executions, their rate,
# coverage, crashes. Builds with nightly and the address sanitizer, for nothing but this.
#
# fuzz.sh SECONDS [TARGET...]    no target means all
set -euo pipefail
source "$(dirname "$0")/lib.sh"
cd "$(dirname "$0")/.."

budget=$1
shift
crate=tests/fuzz
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/target}"
results="$CARGO_TARGET_DIR/fuzz"

[[ "$budget" =~ ^[1-9][0-9]*$ ]] || die "SECONDS=$budget is no number of seconds" "say make fuzz SECONDS=60"
# Asking rustup itself: cargo +nightly could install one unasked.
rustup toolchain list 2>/dev/null | grep -q '^nightly' \
    || die "there is no nightly Rust, which sanitizers need" "install it: rustup toolchain install nightly --profile minimal"
cargo fuzz --version >/dev/null 2>&1 \
    || die "there is no cargo-fuzz" "install it: cargo install --locked cargo-fuzz"

all=()
for file in "$crate"/targets/*.rs; do all+=("$(basename "$file" .rs)"); done
targets=("${@:-${all[@]}}")
for target in "${targets[@]}"; do
    [ -e "$crate/targets/$target.rs" ] || die "there is no fuzz target $target" "there are: ${all[*]}"
done

# What is fuzzed is what is shipped: the same versions of everything.
[ "$crate/Cargo.lock" -nt Cargo.lock ] || cp Cargo.lock "$crate/Cargo.lock"
cargo +nightly fuzz build --fuzz-dir "$crate"

stat() { awk -v name="stat::$2:" '$1 == name { print $2 }' "$1"; }
failed=0
table=""
for target in "${targets[@]}"; do
    say "$target: $budget seconds"
    # What is found goes beside the build; what is worth keeping is put into the corpus by hand. Inputs longer than 8 KB
    # hold nothing new and cost time; the few of the corpus are for the replay.
    mkdir -p "$results/$target/found" "$results/$target/crashes"
    log="$results/$target/log"
    crashes="none"
    if ! cargo +nightly fuzz run --fuzz-dir "$crate" "$target" "$results/$target/found" "$crate/corpus/$target" -- \
        -max_total_time="$budget" -max_len=8192 -dict="$crate/answers.dict" -artifact_prefix="$results/$target/crashes/" \
        -rss_limit_mb=4096 -timeout=30 -print_final_stats=1 > "$log" 2>&1; then
        failed=1
        crashes="see $log"
        grep -aE 'panicked at|ERROR: |Test unit written' -A 1 "$log" || tail -5 "$log"
    fi
    edges=$(grep -aoE 'cov: [0-9]+' "$log" | tail -1 | cut -d' ' -f2 || true)
    table+=$(printf '%-18s %9s executions %6s/s %7s edges  crashes: %s' "$target" \
        "$(stat "$log" number_of_executed_units)" "$(stat "$log" average_exec_per_sec)" "${edges:-0}" "$crashes")$'\n'
done
printf '\n%s' "$table"
exit "$failed"
