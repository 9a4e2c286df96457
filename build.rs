//! Asks the linker to keep the section in which pgrx describes the SQL functions.

fn main() {
    // Nothing in the library refers to that section, so a linker may drop it, and the install script would be empty.
    // cargo-pgrx has a remedy of its own, but it changes the flags of every crate: tests and extension would then
    // share nothing of what they compile. Given here, the flag reaches the one library that needs it.
    println!("cargo::rustc-link-arg-cdylib=-Wl,--no-gc-sections");
    println!("cargo::rerun-if-changed=build.rs");
}
