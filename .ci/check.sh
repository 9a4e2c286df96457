#!/usr/bin/env bash
# The quick gate: what can be judged without a server. Runs every check, then says which of them failed.
set -uo pipefail

failed=()
check() { # check NAME COMMAND...
    printf '\n== %s\n' "$1"
    "${@:2}" || failed+=("$1")
}

# Lines of the project's own files that must not exist, whatever they are good for.
no_line() { # no_line PATTERN PATH...
    ! git grep -nE "$1" -- "${@:2}"
}

features=(--no-default-features --features "pg$PG")
check format cargo fmt --all --check
check lints cargo clippy --workspace --all-targets "${features[@]}" -- -D warnings
check "core tests" cargo test --quiet --package bridge_core --lib
check documentation env RUSTDOCFLAGS=-Dwarnings cargo doc --workspace --no-deps "${features[@]}"
check layering "$PYTHON" .ci/layering.py
check "supply chain" "$PYTHON" .ci/supply_chain.py
check "figures in the documentation" env PYTHONPATH=tests "$PYTHON" -m bench.document
check "TLS is always verified" no_line 'danger_accept_invalid|InsecureSkipVerify|verify *= *False' src
check "no file named by a server is read" no_line 'LOCAL_FS' src
check "no path of somebody's machine" no_line '/(root|work|home/[a-z]+)/' . ':!Cargo.lock'
check "no silently skipped test" no_line '#\[ignore|mark\.(skip|xfail)|pytest\.skip' src tests

echo
if [ ${#failed[@]} -gt 0 ]; then
    echo "failed: $(printf '%s; ' "${failed[@]}")"
    exit 1
fi
echo "every check passed"
