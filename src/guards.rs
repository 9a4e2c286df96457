//! Whether what guards against attacks is there.

/// False only in a build for tests, `mutant_unguarded`, which shows that the attacks of the test suite are none without the
/// guards they are tried against: the sandbox and who must own what, and the hiding of secrets.
pub const ON: bool = !cfg!(feature = "mutant_unguarded");
