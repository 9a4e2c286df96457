//! Numbers as the digits that JSON has.

use std::fmt::Write;

/// The shortest digits that name this double and no other: 1e23 is 1e23, where PostgreSQL says 9.999999999999999e+22. Zero
/// keeps its sign only as what cannot be read as an integer.
pub(super) fn write_shortest(double: f64, to: &mut String) {
    to.clear();
    // Writing to a String cannot fail.
    let _ = match double.abs() {
        0.0 if double.is_sign_negative() => write!(to, "-0.0e0"),
        size if size == 0.0 || (1e-5..1e16).contains(&size) => write!(to, "{double}"),
        _ => write!(to, "{double:e}"),
    };
}

/// A number of so many digits after the point.
pub(super) fn plain(unscaled: i64, scale: u8) -> String {
    let scale = usize::from(scale);
    let digits = format!("{:0width$}", unscaled.unsigned_abs(), width = scale + 1);
    let (before, after) = digits.split_at(digits.len() - scale);
    let sign = if unscaled < 0 { "-" } else { "" };
    let point = if scale == 0 { "" } else { "." };
    format!("{sign}{before}{point}{after}")
}
