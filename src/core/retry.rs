//! How long to wait before the next try.

use std::time::Duration;

use rand::Rng;

/// Decorrelated jitter: each wait is drawn between `base` and three times the wait before it, and never exceeds `max`.
/// Many clients that failed together come back apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The shortest wait, and the scale of the first.
    pub base: Duration,
    /// The longest wait.
    pub max: Duration,
}

impl Backoff {
    /// The wait after one of `previous`, which is zero before the first.
    pub fn delay(&self, previous: Duration, rng: &mut impl Rng) -> Duration {
        let ceiling = previous
            .saturating_mul(3)
            .clamp(self.base, self.max.max(self.base));
        rng.gen_range(self.base..=ceiling).min(self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    #[test]
    fn the_first_wait_is_the_base() {
        let backoff = Backoff {
            base: Duration::from_secs(1),
            max: Duration::from_secs(16),
        };
        let mut rng = StdRng::seed_from_u64(7);
        assert_eq!(
            backoff.delay(Duration::ZERO, &mut rng),
            Duration::from_secs(1)
        );
    }

    proptest! {
        #[test]
        fn waits_stay_between_base_and_three_times_the_last(
            base in 0u64..100_000, max in 0u64..10_000_000, previous in any::<u64>(), seed in any::<u64>()
        ) {
            let backoff = Backoff { base: Duration::from_millis(base), max: Duration::from_millis(max) };
            let previous = Duration::from_millis(previous);
            let delay = backoff.delay(previous, &mut StdRng::seed_from_u64(seed));
            prop_assert!(delay <= backoff.max);
            prop_assert!(delay >= backoff.base.min(backoff.max));
            prop_assert!(delay <= previous.saturating_mul(3).max(backoff.base));
        }
    }
}
