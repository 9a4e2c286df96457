//! Whether what guards against attacks is there.

/// False only in a build for tests, `mutant_unguarded`, which shows that the attacks of the test suite are none without the
/// guards they are tried against: the sandbox, who must own what and what names mean, whose word counts for who asks, and the
/// hiding of secrets.
pub const ON: bool = !cfg!(feature = "mutant_unguarded");

/// Whether code of others runs in the sandbox. The build without guards has it where it is asked to, to show what the others are for.
pub fn is_sandboxed() -> bool {
    ON || std::env::var_os("SNOWFLAKE_BRIDGE_SANDBOXED").is_some()
}
