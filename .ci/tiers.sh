#!/usr/bin/env bash
# Runs every test tier within its budget, cheapest first, and ends with a table and the line "N passed, M failed".
# A tier that runs no test, or skips one, has failed: a green line must mean that something was proved.
set -uo pipefail
cd "$(dirname "$0")/.."

logs=target/tiers
mkdir -p "$logs"
passed_total=0
failed_total=0
table=""

# Reads "passed failed skipped" from a runner's own output; all runners of the tiers are understood.
count_tests() {
    awk '
        # cargo test: test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out
        /^test result:/ { passed += $4; failed += $6; skipped += $8 }
        # pytest: ===== 3 passed, 1 failed, 1 error, 2 skipped in 4.5s =====
        /^=+ .* in [0-9.]+s/ {
            for (i = 2; i < NF; i++) {
                if ($(i + 1) ~ /^passed/) passed += $i
                if ($(i + 1) ~ /^(failed|error)/) failed += $i
                if ($(i + 1) ~ /^(skipped|xfailed|xpassed)/) skipped += $i
            }
        }
        # pg_regress, pg_isolation_regress: test surface                      ... ok           12 ms
        /^(test|    ) .* \.\.\. ok +[0-9]+ ms$/ { passed++ }
        /^(test|    ) .* \.\.\. FAILED +[0-9]+ ms$/ { failed++ }
        # fidelity: types=60 values=900 exact=880 refused=20 wrong=0
        /^fidelity: / {
            for (i = 2; i <= NF; i++) {
                split($i, pair, "=")
                if (pair[1] == "exact" || pair[1] == "refused") passed += pair[2]
                if (pair[1] == "wrong") failed += pair[2]
            }
        }
        # chaos: seed=1 jobs=120 rows=400 kills=5 faults=40 lost=0 doubled=0 unverified=0 stuck=0
        /^chaos: seed=/ {
            for (i = 3; i <= NF; i++) {
                split($i, pair, "=")
                if (pair[1] == "jobs") passed += pair[2]
                if (pair[1] ~ /^(lost|doubled|unverified|stuck)$/) failed += pair[2]
            }
        }
        # chaos mutant: package-mutant_no_delete doubled=7
        /^chaos mutant: / {
            for (i = 4; i <= NF; i++) {
                split($i, pair, "=")
                if (pair[2] > 0) passed++; else failed++
            }
        }
        END { print passed + 0, failed + 0, skipped + 0 }
    ' "$1"
}

running=""
trap '[ -z "$running" ] || kill "$running" 2>/dev/null; exit 130' INT TERM

# Runs one step, shows its output as it comes, and leaves its exit code in `status` and its seconds in `seconds`.
timed() { # timed NAME BUDGET TARGET...
    printf '\n=== %s (at most %s)\n' "$1" "$2"
    local start=$SECONDS
    # There before whoever shows it looks for it.
    : > "$logs/$1.log"
    timeout --kill-after=30s "$2" make --no-print-directory "${@:3}" > "$logs/$1.log" 2>&1 &
    running=$!
    tail --lines=+1 --follow --sleep-interval=0.2 --pid="$running" "$logs/$1.log"
    wait "$running"
    status=$?
    running=""
    seconds=$((SECONDS - start))
    if [ "$status" -eq 124 ] || [ "$status" -eq 137 ]; then echo "$1 did not end within $2"; fi
}

report() { # report NAME TESTS SECONDS REMARK
    table+=$(printf '%-12s %8s %8s  %s' "$@")$'\n'
}

finish() {
    printf '\n%-12s %8s %8s\n%s' tier tests seconds "$table"
    printf '\n%s\n' "$passed_total passed, $failed_total failed"
    [ "$failed_total" -eq 0 ]
    exit
}

step() { # step NAME BUDGET TARGET...: something the tiers need, which holds no test
    timed "$@"
    report "$1" - "$seconds" ""
    if [ "$status" -ne 0 ]; then
        echo "$1 failed, so no tier can run"
        failed_total=$((failed_total + 1))
        finish
    fi
}

tier() { # tier NAME BUDGET TARGET
    timed "$@"
    local passed failed skipped remark=""
    read -r passed failed skipped < <(count_tests "$logs/$1.log")
    if [ "$skipped" -gt 0 ]; then
        failed=$((failed + skipped))
        remark="$skipped skipped, which counts as failed"
    elif [ "$status" -ne 0 ] && [ "$failed" -eq 0 ]; then
        failed=1
        remark="ended with status $status"
    elif [ $((passed + failed)) -eq 0 ]; then
        failed=1
        remark="ran no test"
    elif [ "$failed" -gt 0 ]; then
        remark="$failed failed"
    fi
    passed_total=$((passed_total + passed))
    failed_total=$((failed_total + failed))
    report "$1" "$passed" "$seconds" "$remark"
}

# A budget stops a tier that hangs, with room for a slow two-core machine; .ci/run bounds the whole.
step deps 20m deps
step install 15m install PROFILE=dev
tier core 10m test-core
tier protocol 5m test-protocol
tier standin 8m test-standin
tier conformance 8m test-conformance
tier regress 3m test-regress
tier isolation 10m test-isolation
tier fidelity 6m test-fidelity
tier security 15m test-security
tier e2e 25m test-e2e
tier chaos 12m test-chaos
finish
