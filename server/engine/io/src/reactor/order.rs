//! What a worker was told, and how far it is with that: values, changed by `drain`.

/// What the worker was last told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Order {
    /// Serve.
    Serve,
    /// Pass every connection to other workers.
    HandOver,
    /// Answer what is there with `Connection: close`, take nothing new once the accept queue is empty.
    Close,
    /// Close everything.
    Stop,
}

/// How far the worker is on its way out; times on the monotonic clock.
///
/// ```text
/// Serving → HandingOver ────────────────────────────────→ Stopping
///    └──┬───────┴→ LastRequests → LastWaiting → Shut ────────┘
///       │                │            ↑           ↑
///       └────────→ LastHandshakes ────┴───────────┘
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Drain {
    /// It is not.
    Serving,
    /// All connections go to other workers; none is accepted.
    HandingOver { since_us: u64 },
    /// Close, at first: idle clients may bring one more request, and for as long new ones are welcome too.
    LastRequests { since_us: u64 },
    /// Close, with new handshakes refused by the kernel: those that had begun are waited for.
    LastHandshakes { since_us: u64 },
    /// Close: so many who waited when the grace ended are still accepted. Under load the accept queues may never be seen
    /// empty.
    LastWaiting { left: usize },
    /// Close: nobody is accepted any more.
    Shut,
    /// Everything is closed.
    Stopping,
}

impl Drain {
    /// The order that led here.
    pub(super) const fn order(self) -> Order {
        match self {
            Self::Serving => Order::Serve,
            Self::HandingOver { .. } => Order::HandOver,
            Self::LastRequests { .. }
            | Self::LastHandshakes { .. }
            | Self::LastWaiting { .. }
            | Self::Shut => Order::Close,
            Self::Stopping => Order::Stop,
        }
    }

    /// Whether another connection may be accepted.
    pub(super) const fn accepts(self) -> bool {
        match self {
            Self::Serving | Self::LastRequests { .. } | Self::LastHandshakes { .. } => true,
            Self::LastWaiting { left } => left > 0,
            Self::HandingOver { .. } | Self::Shut | Self::Stopping => false,
        }
    }

    /// One more was accepted.
    pub(super) const fn count_accepted(&mut self) {
        if let Self::LastWaiting { left } = self {
            *left = left.saturating_sub(1);
        }
    }
}
