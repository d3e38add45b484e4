//! A number of bytes that many share: what is set aside by one is not there for the others, until it is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Bytes that can be set aside.
#[derive(Clone)]
pub struct Budget(Arc<AtomicU64>);

impl Budget {
    /// A budget of so many bytes.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        Self(Arc::new(AtomicU64::new(bytes)))
    }

    /// Sets `bytes` aside; `None` when there are not so many.
    #[must_use]
    pub fn take(&self, bytes: u64) -> Option<Reserved> {
        let mut reserved = Reserved { budget: self.clone(), bytes: 0 };
        reserved.cover(bytes).then_some(reserved)
    }

    /// Makes what is set aside in `reserved`, perhaps nothing yet, at least `bytes`; false, and nothing changes, when
    /// there are not so many.
    #[must_use]
    pub fn cover(&self, reserved: &mut Option<Reserved>, bytes: u64) -> bool {
        if let Some(reserved) = reserved {
            return reserved.cover(bytes);
        }
        *reserved = self.take(bytes);
        reserved.is_some()
    }
}

/// Bytes set aside; given back when dropped.
pub struct Reserved {
    budget: Budget,
    bytes: u64,
}

impl Reserved {
    /// Makes it at least `bytes` in all; false, and nothing changes, when there are not so many.
    pub fn cover(&mut self, bytes: u64) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        let left = &self.budget.0;
        if more > 0 && left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(more)).is_err() {
            return false;
        }
        self.bytes += more;
        true
    }

    /// Gives back what is above `bytes`.
    pub fn shrink(&mut self, bytes: u64) {
        let less = self.bytes.saturating_sub(bytes);
        if less > 0 {
            self.budget.0.fetch_add(less, Relaxed);
            self.bytes -= less;
        }
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.budget.0.fetch_add(self.bytes, Relaxed);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_gives_what_it_has_and_gets_it_back() {
        let budget = Budget::new(100);
        let most = budget.take(90);
        assert!(most.is_some());
        assert!(budget.take(11).is_none());
        let rest = budget.take(10);
        assert!(rest.is_some());
        drop(most);
        assert!(budget.take(90).is_some());
    }

    #[test]
    fn what_is_set_aside_grows_as_far_as_there_is_something_left() {
        let budget = Budget::new(100);
        let mut reserved = budget.take(10).unwrap();
        assert!(reserved.cover(100));
        assert!(reserved.cover(5));
        assert!(!reserved.cover(101));
        assert!(budget.take(1).is_none());
        reserved.shrink(60);
        assert!(budget.take(40).is_some());
        assert!(budget.take(41).is_none());
        drop(reserved);
        assert!(budget.take(100).is_some());
    }
}
