//! What the watchdog may know of an app thread's running call: since when, on which socket, how far its answer is.
//!
//! One cell per app thread. The app thread and the watchdog meet in `stage`, a small state machine:
//!
//! ```text
//! None → Open → Sent → None               the app answers
//!         └─→ Expiring → Expired → None   the watchdog answers 504
//! ```
//!
//! The number of the call is part of it, so that the watchdog can never mean one call and meet the next.

use std::ops::Index;
use std::os::fd::RawFd;
use std::sync::atomic::{
    AtomicBool, AtomicI32, AtomicU64, AtomicUsize,
    Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst},
};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};

use prefork_core::identity::MADE_ID_BYTES;
use prefork_core::{Head, Limits, head};

use crate::accounting::Received;
use crate::conn::Conn;
use crate::out_queue::OutQueue;

const NONE: u64 = 0;
const OPEN: u64 = 1;
const SENT: u64 = 2;
const EXPIRING: u64 = 3;
const EXPIRED: u64 = 4;

/// The lower bits of `stage` are one of the above, the upper ones the call's number.
const STAGE_BITS: u32 = 3;
const STAGE_MASK: u64 = (1 << STAGE_BITS) - 1;

/// See the head of this file.
#[derive(Default)]
pub struct Thread {
    stage: AtomicU64,
    /// When the call began; 0 between calls.
    start_us: AtomicU64,
    /// How long the call has waited for its client, and since when it does so now; 0 when it does not.
    waited_us: AtomicU64,
    waiting_since_us: AtomicU64,
    /// The socket of the call; valid while the stage is not `NONE`.
    fd: AtomicI32,
    /// What Python calls this thread.
    ident: AtomicU64,
    /// What a report of the call needs.
    line: Mutex<Line>,
    /// Part of the answer the client has not taken while the app goes on producing it.
    unsent: Mutex<OutQueue>,
    has_unsent: AtomicBool,
    /// That the client of the call left is counted.
    is_left_counted: AtomicBool,
    /// The last call took so long that another thread should lead meanwhile.
    pub(crate) is_slow: AtomicBool,
}

/// All of a worker's cells, of which only those that somebody has joined are made: there may be room for thousands of
/// greenlets.
pub struct Threads {
    cells: Vec<OnceLock<Box<Thread>>>,
    joined: AtomicUsize,
}

impl Threads {
    /// Room for `most` threads.
    #[must_use]
    pub fn new(most: usize) -> Self {
        let cells = std::iter::repeat_with(OnceLock::new).take(most).collect();
        Self { cells, joined: AtomicUsize::new(0) }
    }

    /// Takes the next cell; `None` when all are taken.
    pub fn join(&self) -> Option<usize> {
        let taken = self.joined.fetch_update(SeqCst, SeqCst, |joined| {
            (joined < self.cells.len()).then_some(joined + 1)
        });
        taken.ok()
    }

    /// How many there may be.
    #[must_use]
    pub fn most(&self) -> usize {
        self.cells.len()
    }

    /// Those that were joined.
    pub fn iter(&self) -> impl Iterator<Item = &Thread> {
        (0..self.joined.load(Acquire)).map(|number| &self[number])
    }
}

impl Index<usize> for Threads {
    type Output = Thread;

    fn index(&self, number: usize) -> &Thread {
        self.cells[number].get_or_init(Box::default)
    }
}

/// The request of the running call.
#[derive(Default)]
struct Line {
    request: Request,
    is_overdue: bool,
}

/// A copy of what the answer to an overdue call, its count and its lines in the logs need: the request itself is the app
/// thread's.
#[derive(Clone, Default)]
pub struct Request {
    /// The bytes of the head.
    pub head: Vec<u8>,
    /// As in [`Received`].
    pub remote: String,
    /// As in [`Received`].
    pub is_trusted: bool,
    /// As in [`Received`].
    pub made_id: Option<[u8; MADE_ID_BYTES]>,
    /// As in [`Received`].
    pub ready_us: u64,
}

impl Request {
    fn renew(&mut self, conn: &Conn) {
        self.head.clear();
        self.head.extend_from_slice(conn.request().head_bytes());
        self.remote.clear();
        self.remote.push_str(&conn.peer.host);
        self.is_trusted = conn.peer.is_trusted;
        self.made_id = conn.made_id;
        self.ready_us = conn.ready_us;
    }

    /// Reads the head again; `limits` are those with which it was read before.
    #[must_use]
    pub fn parse(&self, limits: &Limits) -> Head {
        let mut head = Head::new();
        let _ = head::parse(&self.head, limits, &mut head);
        head
    }

    /// The request as it is counted and logged.
    #[must_use]
    pub fn received<'a>(&'a self, head: &'a Head) -> Received<'a> {
        Received {
            remote: &self.remote,
            is_trusted: self.is_trusted,
            head: Some(head),
            bytes: &self.head,
            made_id: self.made_id.as_ref().map_or(&[], |id| id),
            size: self.head.len() as u64,
            ready_us: self.ready_us,
        }
    }
}

/// A call that is over its time.
pub struct Overdue {
    /// The number of the call, for [`Thread::expire`].
    call: u64,
    /// What it is about.
    pub request: Request,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The watchdog answered it.
    pub is_expired: bool,
    /// It was reported as overdue.
    pub is_overdue: bool,
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

    /// A call begins; `is_timed` when there is a limit to its time.
    pub fn begin(&self, conn: &Conn, now_us: u64, is_timed: bool) {
        if is_timed {
            lock(&self.line).request.renew(conn);
        }
        self.waited_us.store(0, Relaxed);
        // A reader of an earlier call's body may not have come back from its wait.
        self.waiting_since_us.store(0, Relaxed);
        self.is_left_counted.store(false, Relaxed);
        self.fd.store(conn.raw_fd(), Relaxed);
        let call = (self.stage.load(Relaxed) >> STAGE_BITS) + 1;
        self.stage.store(call << STAGE_BITS | OPEN, Release);
        self.start_us.store(now_us, Release);
    }

    /// The app begins to wait for the client: for its body, or for room to send.
    pub fn begin_waiting(&self, now_us: u64) {
        self.waiting_since_us.store(now_us, Relaxed);
    }

    /// The wait is over.
    pub fn end_waiting(&self, now_us: u64) {
        let since_us = self.waiting_since_us.swap(0, Relaxed);
        if since_us > 0 {
            self.waited_us.fetch_add(now_us.saturating_sub(since_us), Relaxed);
        }
    }

    /// So much time was nobody's: the process did not run.
    pub fn excuse(&self, time_us: u64) {
        self.waited_us.fetch_add(time_us, Relaxed);
    }

    /// How long the call that began at `start_us` has been running, without the time it has waited for its client.
    #[must_use]
    pub fn elapsed_us(&self, start_us: u64, now_us: u64) -> u64 {
        let since_us = self.waiting_since_us.load(Relaxed);
        let waiting_us = if since_us == 0 { 0 } else { now_us.saturating_sub(since_us) };
        now_us.saturating_sub(start_us + self.waited_us.load(Relaxed) + waiting_us)
    }

    /// When the running call began; 0 for none.
    #[must_use]
    pub fn start_us(&self) -> u64 {
        self.start_us.load(Acquire)
    }

    fn advance(&self, from: u64, to: u64) -> Result<u64, u64> {
        self.stage.compare_exchange(from, to, AcqRel, Acquire)
    }

    /// Claims the socket for the app's answer; false when the time was over and the client has its 504.
    #[must_use]
    pub fn claim(&self) -> bool {
        loop {
            let stage = self.stage.load(Acquire);
            match stage & STAGE_MASK {
                SENT => return true,
                OPEN if self.advance(stage, stage - OPEN + SENT).is_ok() => return true,
                OPEN => {}
                EXPIRING => std::thread::yield_now(),
                _ => return false,
            }
        }
    }

    /// The call is over.
    pub fn end(&self, is_timed: bool) -> Ended {
        self.start_us.store(0, Release);
        let is_expired = loop {
            let stage = self.stage.load(Acquire);
            match stage & STAGE_MASK {
                EXPIRING => std::thread::yield_now(),
                now => {
                    if self.advance(stage, stage - now + NONE).is_ok() {
                        break now == EXPIRED;
                    }
                }
            }
        };
        let is_overdue = is_timed && std::mem::take(&mut lock(&self.line).is_overdue);
        Ended { is_expired, is_overdue }
    }

    /// Marks the call that began at `start_us` as overdue; `None` when it is over, or was marked before. `mark` runs
    /// before the app thread can end the call.
    pub fn mark_overdue(&self, start_us: u64, mark: impl FnOnce()) -> Option<Overdue> {
        let mut line = lock(&self.line);
        let stage = self.stage.load(Acquire);
        if stage & STAGE_MASK == NONE || self.start_us() != start_us || line.is_overdue {
            return None;
        }
        line.is_overdue = true;
        mark();
        Some(Overdue { call: stage >> STAGE_BITS, request: line.request.clone() })
    }

    /// Whether the running call was marked as overdue.
    #[must_use]
    pub fn is_overdue(&self) -> bool {
        self.start_us() != 0 && lock(&self.line).is_overdue
    }

    /// The watchdog claims the socket of an overdue call; `answer` runs with it if nothing was sent yet.
    /// Returns whether it was answered.
    pub fn expire(&self, overdue: &Overdue, answer: impl FnOnce(RawFd)) -> bool {
        let call = overdue.call << STAGE_BITS;
        if self.advance(call | OPEN, call | EXPIRING).is_err() {
            return false;
        }
        // INVARIANT: while EXPIRING the app thread waits in `claim` or `end`, so the descriptor stays open.
        answer(self.fd.load(Relaxed));
        self.stage.store(call | EXPIRED, Release);
        true
    }

    /// The client of the running call left before it had its answer: true when that is new.
    #[must_use]
    pub fn note_left(&self) -> bool {
        !self.is_left_counted.swap(true, Relaxed)
    }

    /// Whether the client of the running call is known to have left.
    #[must_use]
    pub fn has_left(&self) -> bool {
        self.is_left_counted.load(Relaxed)
    }

    /// Whether part of the answer waits for the client.
    #[must_use]
    pub fn has_unsent(&self) -> bool {
        self.has_unsent.load(Acquire)
    }

    /// The waiting part of the answer and the socket it is for.
    ///
    /// INVARIANT: as long as something waits the socket is open: it is taken away under this lock before the call ends.
    pub fn with_unsent<T>(&self, action: impl FnOnce(&mut OutQueue, RawFd) -> T) -> T {
        let mut unsent = lock(&self.unsent);
        let result = action(&mut unsent, self.fd.load(Relaxed));
        self.has_unsent.store(!unsent.is_empty(), Release);
        result
    }

    /// As [`Thread::with_unsent`]; `None`, and nothing happens, while the app thread itself is at it.
    pub fn try_with_unsent<T>(&self, action: impl FnOnce(&mut OutQueue, RawFd) -> T) -> Option<T> {
        let mut unsent = match self.unsent.try_lock() {
            Ok(unsent) => unsent,
            Err(TryLockError::Poisoned(unsent)) => unsent.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        let result = action(&mut unsent, self.fd.load(Relaxed));
        self.has_unsent.store(!unsent.is_empty(), Release);
        Some(result)
    }

    /// Takes the waiting part away, at the end of the call.
    #[must_use]
    pub fn take_unsent(&self) -> OutQueue {
        self.with_unsent(|unsent, _| std::mem::take(unsent))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn running() -> Thread {
        let thread = Thread::default();
        thread.stage.store(7 << STAGE_BITS | OPEN, Release);
        thread.start_us.store(100, Release);
        thread
    }

    #[test]
    fn an_overdue_call_is_answered_once_and_the_app_comes_too_late() {
        let thread = running();
        let overdue = thread.mark_overdue(100, || ()).unwrap();
        assert!(thread.mark_overdue(100, || ()).is_none());
        assert!(thread.expire(&overdue, |_| ()));
        assert!(!thread.expire(&overdue, |_| ()));
        assert!(!thread.claim());
        assert_eq!(thread.end(true), Ended { is_expired: true, is_overdue: true });
    }

    #[test]
    fn an_answer_that_has_begun_is_left_to_the_app() {
        let thread = running();
        let overdue = thread.mark_overdue(100, || ()).unwrap();
        assert!(thread.claim());
        assert!(!thread.expire(&overdue, |_| ()));
        assert!(thread.claim());
        assert_eq!(thread.end(true), Ended { is_expired: false, is_overdue: true });
    }

    #[test]
    fn time_spent_waiting_for_the_client_does_not_count() {
        let thread = running();
        thread.begin_waiting(150);
        assert_eq!(thread.elapsed_us(100, 950), 50);
        thread.end_waiting(1150);
        assert_eq!(thread.elapsed_us(100, 1200), 100);
        thread.excuse(60);
        assert_eq!(thread.elapsed_us(100, 1200), 40);
    }

    #[test]
    fn the_next_call_is_not_taken_for_the_overdue_one() {
        let thread = running();
        let overdue = thread.mark_overdue(100, || ()).unwrap();
        assert!(thread.end(true).is_overdue);
        thread.stage.store(8 << STAGE_BITS | OPEN, Release);
        thread.start_us.store(200, Release);
        assert!(!thread.expire(&overdue, |_| ()));
        assert!(thread.mark_overdue(100, || ()).is_none());
        assert!(thread.claim());
        assert_eq!(thread.end(true), Ended { is_expired: false, is_overdue: false });
    }
}
