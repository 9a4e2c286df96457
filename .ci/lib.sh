# What the scripts in this folder share: plain messages, and root rights only where they are needed.
# Sourced, never run. Expects PG_CONFIG, PG, VENVS and PGRX_VERSION from the Makefile.

say() { printf '%s\n' "-- $*"; }

# Says what is missing and what to do about it, one argument per line, and ends the script.
die() {
    printf '%s\n' "" "cannot go on: $1" "${@:2}" >&2
    exit 1
}

# Runs a command with root's rights: directly as root, through sudo as anybody else.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        die "this step needs root's rights, and there is no sudo here" "run as root: $*" "or install sudo and allow it to $(id -un)"
    fi
}
