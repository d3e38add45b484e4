//! What the helper may know of an app thread's running call: since when, on which socket, how far its answer is.
//!
//! One cell per app thread. The app thread and the helper meet in `stage`, a small state machine:
//!
//! ```text
//! None → Open → Sent → None          the app answers
//!         └─→ Expiring → Expired → None   the helper answers 504
//! ```

use std::os::fd::RawFd;
use std::sync::atomic::{
    AtomicBool, AtomicI32, AtomicU8, AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::conn::{Conn, Unsent};

const NONE: u8 = 0;
const OPEN: u8 = 1;
const SENT: u8 = 2;
const EXPIRING: u8 = 3;
const EXPIRED: u8 = 4;

/// See the head of this file.
#[derive(Default)]
pub struct Thread {
    stage: AtomicU8,
    /// When the call began; 0 between calls.
    start_us: AtomicU64,
    /// The socket of the call; valid while `stage` is not `NONE`.
    fd: AtomicI32,
    /// What Python calls this thread.
    ident: AtomicU64,
    /// Row of the method in the stats table.
    method: AtomicU8,
    /// Method and target of the call.
    line: Mutex<(Vec<u8>, Vec<u8>)>,
    /// The timeout of this call was reported.
    is_reported: AtomicBool,
    /// Part of the answer the client has not taken while the app goes on producing it.
    unsent: Mutex<Unsent>,
    has_unsent: AtomicBool,
    /// The last call took so long that another thread should lead meanwhile.
    pub(crate) is_slow: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Thread {
    /// Names the thread.
    pub fn set_ident(&self, ident: u64) {
        self.ident.store(ident, Relaxed);
    }

    /// What Python calls this thread.
    #[must_use]
    pub fn ident(&self) -> u64 {
        self.ident.load(Relaxed)
    }

    /// A call begins.
    pub fn begin(&self, conn: &Conn, now_us: u64, is_timed: bool) {
        if is_timed {
            let request = conn.request();
            let bytes = request.head_bytes();
            let mut line = lock(&self.line);
            line.0.clear();
            line.0.extend_from_slice(request.head.method_name.of(bytes));
            line.1.clear();
            line.1.extend_from_slice(request.head.target.of(bytes));
            self.method.store(request.head.method as u8, Relaxed);
            self.is_reported.store(false, Relaxed);
        }
        self.fd.store(conn.raw_fd(), Relaxed);
        self.start_us.store(now_us, Relaxed);
        self.stage.store(OPEN, Release);
    }

    /// When the running call began; 0 for none.
    #[must_use]
    pub fn start_us(&self) -> u64 {
        self.start_us.load(Relaxed)
    }

    /// Claims the socket for the app's answer; false when the time was over and the client has its 504.
    #[must_use]
    pub fn claim(&self) -> bool {
        loop {
            match self.stage.compare_exchange(OPEN, SENT, AcqRel, Acquire) {
                Ok(_) | Err(SENT) => return true,
                Err(EXPIRING) => std::thread::yield_now(),
                Err(_) => return false,
            }
        }
    }

    /// The call is over; tells whether it was answered by the helper.
    pub fn end(&self) -> bool {
        loop {
            match self.stage.load(Acquire) {
                EXPIRING => std::thread::yield_now(),
                // Only the helper leaves OPEN beside this thread.
                stage => {
                    if self.stage.compare_exchange(stage, NONE, AcqRel, Acquire).is_ok() {
                        self.start_us.store(0, Relaxed);
                        return stage == EXPIRED;
                    }
                }
            }
        }
    }

    /// The helper claims the socket of an overdue call; `answer` runs with it if nothing was sent yet.
    /// Returns whether it was answered.
    pub fn expire(&self, answer: impl FnOnce(RawFd)) -> bool {
        if self.stage.compare_exchange(OPEN, EXPIRING, AcqRel, Acquire).is_err() {
            return false;
        }
        // INVARIANT: while EXPIRING the app thread waits in `claim` or `end`, so the descriptor stays open.
        answer(self.fd.load(Relaxed));
        self.stage.store(EXPIRED, Release);
        true
    }

    /// Method and target of the call that began at `start_us`, the first time it is asked for.
    #[must_use]
    pub fn report_once(&self, start_us: u64) -> Option<(Vec<u8>, Vec<u8>)> {
        let line = lock(&self.line);
        (self.start_us() == start_us && !self.is_reported.swap(true, Relaxed)).then(|| line.clone())
    }

    /// Row of the running call's method in the stats table.
    #[must_use]
    pub fn method(&self) -> usize {
        usize::from(self.method.load(Relaxed))
    }

    /// The socket of the call. INVARIANT: open while the thread has something unsent, which is taken away under its lock
    /// before the connection is given back.
    #[must_use]
    pub fn raw_fd(&self) -> RawFd {
        self.fd.load(Relaxed)
    }

    /// Whether part of the answer waits for the client.
    #[must_use]
    pub fn has_unsent(&self) -> bool {
        self.has_unsent.load(Acquire)
    }

    /// The waiting part of the answer, to add to or to send.
    pub fn with_unsent<T>(&self, action: impl FnOnce(&mut Unsent) -> T) -> T {
        let mut unsent = lock(&self.unsent);
        let result = action(&mut unsent);
        self.has_unsent.store(!unsent.is_empty(), Release);
        result
    }

    /// Takes the waiting part away, at the end of the call.
    #[must_use]
    pub fn take_unsent(&self) -> Unsent {
        self.with_unsent(std::mem::take)
    }
}
