//! What Snowflake's answers tell about the clock of this machine: logins with a key pair fail by a clock that is wrong.

use std::sync::atomic::{AtomicI64, Ordering};

use chrono::{DateTime, Utc};
use http::header::{self, HeaderMap};

/// No answer has told yet.
const UNKNOWN: i64 = i64::MIN;

static AHEAD: AtomicI64 = AtomicI64::new(UNKNOWN);

/// By how many seconds the clock of this machine was ahead of Snowflake's when its last answer came; `None` before the
/// first. The way of the answer counts against it, and so does that the header names whole seconds only.
#[must_use]
pub fn seconds_ahead() -> Option<i64> {
    Some(AHEAD.load(Ordering::Relaxed)).filter(|ahead| *ahead != UNKNOWN)
}

/// Takes note of an answer that has just come.
pub(crate) fn observe(headers: &HeaderMap) {
    if let Some(ahead) = ahead(headers, Utc::now()) {
        AHEAD.store(ahead, Ordering::Relaxed);
    }
}

fn ahead(headers: &HeaderMap, now: DateTime<Utc>) -> Option<i64> {
    let date = headers.get(header::DATE)?.to_str().ok()?;
    let date = DateTime::parse_from_rfc2822(date).ok()?;
    Some(now.signed_duration_since(date).num_seconds())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_compared() {
        let now = DateTime::from_timestamp(1_700_000_000, 0).unwrap();
        let at = |date: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::DATE, date.parse().unwrap());
            ahead(&headers, now)
        };
        assert_eq!(at("Tue, 14 Nov 2023 22:13:20 GMT"), Some(0));
        assert_eq!(at("Tue, 14 Nov 2023 22:12:20 GMT"), Some(60));
        assert_eq!(at("Tue, 14 Nov 2023 23:13:20 GMT"), Some(-3_600));
        assert_eq!(at("soon"), None);
        assert_eq!(ahead(&HeaderMap::new(), now), None);
    }
}
