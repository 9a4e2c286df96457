#!/usr/bin/env bash
# Builds the extension and puts it where PG_CONFIG's server looks for extensions.
# Files that are there already are left alone, so that a second run needs no rights; a library in use is replaced by a
# new file and never written over, because a running server has the old one mapped.
set -euo pipefail
source "$(dirname "$0")/lib.sh"

package="${CARGO_TARGET_DIR:-target}/package-pg$PG"
case "$PROFILE" in
    release) profile=() ;;
    dev) profile=(--debug) ;;
    *) die "PROFILE=$PROFILE is neither release nor dev" ;;
esac
rm -rf "$package"
cargo pgrx package "${profile[@]}" --pg-config "$PG_CONFIG" --out-dir "$package" --no-default-features --features "pg$PG"

find "$package" -type f -printf '/%P\n' | while read -r file; do
    if ! cmp -s "$package$file" "$file"; then
        if [ -w "$(dirname "$file")" ]; then
            install -D -m 644 "$package$file" "$file"
        else
            as_root install -D -m 644 "$package$file" "$file"
        fi
        say "installed $file"
    fi
done
