//! Whether this machine's clock was set back.

use std::time::{Duration, Instant, SystemTime};

/// What a clock may lose between two looks without anybody noticing.
const TOLERANCE: Duration = Duration::from_secs(1);

/// The clock, beside one that is never set.
pub(super) struct Clock {
    wall: SystemTime,
    steady: Instant,
}

impl Clock {
    pub(super) fn new() -> Self {
        Self {
            wall: SystemTime::now(),
            steady: Instant::now(),
        }
    }

    /// Whether it shows an earlier time than it would if nobody had set it since it was looked at last.
    pub(super) fn was_set_back(&mut self) -> bool {
        self.looks_set_back(SystemTime::now(), Instant::now())
    }

    fn looks_set_back(&mut self, wall: SystemTime, steady: Instant) -> bool {
        let expected = self.wall + steady.saturating_duration_since(self.steady);
        *self = Self { wall, steady };
        expected
            .duration_since(wall)
            .is_ok_and(|lost| lost > TOLERANCE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clock_that_was_set_back_is_noticed() {
        let (wall, steady) = (SystemTime::now(), Instant::now());
        let at = |seconds: u64| Duration::from_secs(seconds);
        let mut clock = Clock { wall, steady };
        assert!(!clock.looks_set_back(wall + at(60), steady + at(60)));
        assert!(
            !clock.looks_set_back(wall + at(3_660), steady + at(61)),
            "set forward"
        );
        assert!(
            clock.looks_set_back(wall + at(70), steady + at(70)),
            "set back again"
        );
        assert!(
            !clock.looks_set_back(wall + at(80), steady + at(80)),
            "noticed once"
        );
        assert!(clock.looks_set_back(wall - at(10), steady + at(81)));
    }
}
