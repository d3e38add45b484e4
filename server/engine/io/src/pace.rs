//! How slow a client may be: how long it may pause, and the rate it has to keep once that grace is over.
//!
//! One rule for both directions. Only time in which the server waits for the client counts; whoever keeps a pace takes
//! his own time out again with [`Pace::excuse`]. Pure: the caller brings the clock and counts the bytes.

/// The bounds of one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// The longest time without a byte, and the grace before the rate counts.
    pub pause_us: u64,
    /// Bytes per second on average, after the grace; 0 is no bound.
    pub bytes_per_s: u64,
}

/// The longest pause, and the grace, of a client that holds what others wait for.
const PRESSED_PAUSE_US: u64 = 5_000_000;

impl Patience {
    /// What is left of it when memory and spool are full: whoever does not move then makes room for those who do.
    #[must_use]
    pub fn under_pressure(self) -> Self {
        Self { pause_us: self.pause_us.min(PRESSED_PAUSE_US), ..self }
    }
}

/// One transfer as it goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    since_us: u64,
    last_us: u64,
    bytes: u64,
}

impl Pace {
    /// From now on the client is waited for.
    #[must_use]
    pub fn start(now_us: u64) -> Self {
        Self { since_us: now_us, last_us: now_us, bytes: 0 }
    }

    /// Bytes so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// So many more bytes have come, or have been taken.
    pub fn moved(&mut self, bytes: u64, now_us: u64) {
        if bytes > 0 {
            self.bytes += bytes;
            self.last_us = now_us;
        }
    }

    /// A pause is over, although no byte can be counted.
    pub fn renew(&mut self, now_us: u64) {
        self.last_us = self.last_us.max(now_us);
    }

    /// So much time was not the client's.
    pub fn excuse(&mut self, time_us: u64) {
        self.since_us += time_us;
        self.last_us += time_us;
    }

    /// When the client is too slow, unless more bytes move until then.
    #[must_use]
    pub fn deadline_us(&self, patience: Patience) -> u64 {
        let pause_ends = self.last_us.saturating_add(patience.pause_us);
        if patience.bytes_per_s == 0 {
            return pause_ends;
        }
        let earned_us = u128::from(self.bytes) * 1_000_000 / u128::from(patience.bytes_per_s);
        let rate_ends = self
            .since_us
            .saturating_add(patience.pause_us)
            .saturating_add(u64::try_from(earned_us).unwrap_or(u64::MAX));
        pause_ends.min(rate_ends)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;
    const PATIENCE: Patience = Patience { pause_us: 30 * SECOND, bytes_per_s: 500 };

    #[test]
    fn a_pause_is_bounded_and_each_byte_begins_a_new_one() {
        let mut pace = Pace::start(0);
        assert_eq!(pace.deadline_us(PATIENCE), 30 * SECOND);
        pace.moved(1_000_000, 20 * SECOND);
        assert_eq!(pace.deadline_us(PATIENCE), 50 * SECOND);
        pace.moved(0, 40 * SECOND);
        assert_eq!(pace.deadline_us(PATIENCE), 50 * SECOND);
        pace.renew(45 * SECOND);
        assert_eq!((pace.deadline_us(PATIENCE), pace.bytes()), (75 * SECOND, 1_000_000));
    }

    #[test]
    fn the_rate_counts_after_the_grace() {
        let mut pace = Pace::start(0);
        for second in 1..=40 {
            pace.moved(100, second * SECOND);
        }
        // 4,000 bytes have earned 8 s at 500 a second.
        assert_eq!(pace.deadline_us(PATIENCE), 38 * SECOND);
        pace.moved(2000, 41 * SECOND);
        assert_eq!(pace.deadline_us(PATIENCE), 42 * SECOND);
    }

    #[test]
    fn without_a_rate_only_pauses_count() {
        let patience = Patience { bytes_per_s: 0, ..PATIENCE };
        let mut pace = Pace::start(0);
        pace.moved(1, 1000 * SECOND);
        assert_eq!(pace.deadline_us(patience), 1030 * SECOND);
    }

    #[test]
    fn under_pressure_pauses_are_shorter_never_longer() {
        let mut pace = Pace::start(0);
        pace.moved(1000, SECOND);
        assert_eq!(pace.deadline_us(PATIENCE.under_pressure()), 6 * SECOND);
        let hasty = Patience { pause_us: SECOND, ..PATIENCE };
        assert_eq!(hasty.under_pressure(), hasty);
    }

    #[test]
    fn time_of_the_server_does_not_count() {
        let mut pace = Pace::start(0);
        pace.moved(500, SECOND);
        pace.excuse(100 * SECOND);
        assert_eq!(pace.deadline_us(PATIENCE), 131 * SECOND);
    }

    #[test]
    fn a_patience_without_end_does_not_overflow() {
        let mut pace = Pace::start(u64::MAX / 2);
        pace.moved(u64::MAX / 2, u64::MAX / 2);
        let patience = Patience { pause_us: u64::MAX / 2, bytes_per_s: 1 };
        assert_eq!(pace.deadline_us(patience), u64::MAX - 1);
    }
}
