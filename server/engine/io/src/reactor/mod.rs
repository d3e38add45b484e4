//! All connections that wait for their clients, driven by whichever thread has the lead.
//!
//! The reactor is behind one lock, the lead (see `server`). A turn polls once and handles what came, until a
//! request is ready for a call. Connections in a call belong to their app thread; their slot only remembers what
//! happened on the socket meanwhile, as edge-triggered readiness is told once.

use std::io;
use std::os::fd::RawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::time::Duration;

use crate::buffer::Pool;
use crate::conn::{Conn, Next};
use crate::handover::HandoverSockets;
use crate::shared::Shared;
use crate::sys::{self, Address, Epoll, Event};

mod accept;
mod deadlines;
mod drain;
mod order;
mod slots;

use accept::{ACCEPTS_PER_TURN, Listener};
use order::Drain;
pub use order::Order;
use slots::Slot;

/// Tokens below this are connections: `generation << 32 | index`.
const TOKEN_WAKER: u64 = u64::MAX;
const TOKEN_HANDOVER: u64 = u64::MAX - 1;
const TOKEN_LISTENERS: u64 = u64::MAX - 1024;

/// Events taken at once.
const BATCH: usize = 64;

/// While draining, what could not be passed is tried again this often.
const RETRY_EVERY: Duration = Duration::from_millis(5);

/// At the limit of connections, whether one can make way is looked at so often.
const LOOK_FOR_ROOM_EVERY: Duration = Duration::from_millis(200);

/// Slices of answers sent between two polls; what else can be sent waits for the next one.
const SLICES_PER_POLL: u32 = 4;

/// A connection in a call.
pub type Call = Box<Conn>;

/// Who leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// An app thread, which takes the first ready request itself.
    App,
    /// The watchdog: all app threads are in calls, or on their way.
    Watchdog,
}

/// What a turn came to.
pub enum Turn {
    /// A request for the leading app thread.
    Call(Call),
    /// Nothing to do now.
    Idle,
    /// All orders are carried out; nothing is left.
    Done,
}

/// See the head of this file.
pub struct Reactor {
    epoll: Arc<Epoll>,
    shared: Arc<Shared>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    pool: Pool,
    batch: [Event; BATCH],
    batch_at: usize,
    batch_len: usize,
    /// Slices that may still be sent before the next poll.
    slices_left: u32,
    listeners: Vec<Listener>,
    handover: Option<HandoverSockets>,
    /// Whether listeners and the hand-over sockets are polled.
    has_accept_interest: bool,
    /// Accepting pauses until then.
    accept_after_us: u64,
    open: usize,
    now_us: u64,
    /// `now_us` before the last wait.
    last_turn_us: u64,
    next_deadline_us: u64,
    drain: Drain,
    /// Ready requests beyond the one a turn returns.
    ready: Vec<Call>,
    is_woken: bool,
    /// For messages of the hand-over sockets.
    scratch: Vec<u8>,
}

impl Reactor {
    /// # Errors
    /// What `epoll_ctl(2)` says; a listener that is no socket.
    pub fn new(
        epoll: Arc<Epoll>,
        shared: Arc<Shared>,
        listeners: &[RawFd],
        handover: Option<HandoverSockets>,
        waker: RawFd,
    ) -> io::Result<Self> {
        epoll.add(waker, sys::READ, TOKEN_WAKER)?;
        let listeners = listeners
            .iter()
            .map(|&fd| {
                sys::set_nonblocking(fd)?;
                Ok(Listener { fd, is_tcp: sys::local_address(fd)? != Address::Unix })
            })
            .collect::<io::Result<Vec<_>>>()?;
        Ok(Self {
            epoll,
            shared,
            slots: Vec::new(),
            free: Vec::new(),
            pool: Pool::default(),
            batch: [sys::NO_EVENT; BATCH],
            batch_at: 0,
            batch_len: 0,
            slices_left: SLICES_PER_POLL,
            listeners,
            handover,
            has_accept_interest: false,
            accept_after_us: 0,
            open: 0,
            now_us: sys::monotonic_us(),
            last_turn_us: sys::monotonic_us(),
            next_deadline_us: u64::MAX,
            drain: Drain::Serving,
            ready: Vec::new(),
            is_woken: false,
            scratch: Vec::new(),
        })
    }

    /// Connections open, those in calls included.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open
    }

    /// Whether the waker was used since this was last asked.
    pub fn take_wake(&mut self) -> bool {
        std::mem::take(&mut self.is_woken)
    }

    /// Whether requests became ready beside the one that was returned.
    #[must_use]
    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Whether a turn would find something without asking the kernel.
    #[must_use]
    pub fn is_amid_events(&self) -> bool {
        self.batch_at < self.batch_len || !self.ready.is_empty()
    }

    /// How long may be waited for the next turn: deadlines and orders need one, at the latest then.
    #[must_use]
    pub fn until_due(&self, most: Duration) -> Duration {
        self.wait_at_most(Some(most)).unwrap_or(most)
    }

    /// Takes these requests.
    pub fn take_ready(&mut self) -> std::vec::Drain<'_, Call> {
        self.ready.drain(..)
    }

    /// Puts a connection back after its call; perhaps its next request is already there.
    pub fn take_back(&mut self, conn: Call, next: Next, now_us: u64) {
        #[allow(clippy::cast_possible_truncation)] // the token's lower half is the index
        let index = conn.token as u32;
        self.now_us = self.now_us.max(now_us);
        // Room may have come while the call ran, and would not be reported again.
        self.slots[index as usize].is_write_armed = false;
        self.guarded(index, conn, |_, _, _, _| next);
    }

    /// Handles what there is, after waiting for it no longer than `timeout`.
    pub fn turn(&mut self, role: Role, order: Order, timeout: Option<Duration>) -> Turn {
        self.apply_order(order);
        self.end_grace();
        if let Some(turn) = self.deliver(role) {
            return turn;
        }
        if self.batch_at == self.batch_len {
            self.set_accept_interest(role == Role::App);
            self.poll(timeout);
        }
        if self.now_us >= self.next_deadline_us {
            self.scan_deadlines();
        }
        if self.shared.take_pressure() {
            self.make_way();
        }
        while self.batch_at < self.batch_len {
            let event = self.batch[self.batch_at];
            self.batch_at += 1;
            self.handle(event, role);
            if let Some(turn) = self.deliver(role) {
                return turn;
            }
        }
        self.finish_orders(role)
    }

    /// An app thread takes the first ready request; the watchdog gathers them all.
    fn deliver(&mut self, role: Role) -> Option<Turn> {
        if role == Role::App && !self.ready.is_empty() {
            Some(Turn::Call(self.ready.remove(0)))
        } else {
            None
        }
    }

    fn poll(&mut self, timeout: Option<Duration>) {
        let timeout = self.wait_at_most(timeout);
        self.batch_at = 0;
        self.slices_left = SLICES_PER_POLL;
        // An error here would be a bug of ours; the turn then sees no events and the deadlines still work.
        self.batch_len = self.epoll.wait(&mut self.batch, timeout).unwrap_or(0);
        self.last_turn_us = self.now_us;
        self.now_us = sys::monotonic_us();
    }

    fn wait_at_most(&self, timeout: Option<Duration>) -> Option<Duration> {
        if timeout == Some(Duration::ZERO) {
            return timeout;
        }
        let until_deadline = (self.next_deadline_us != u64::MAX).then(|| {
            Duration::from_micros(self.next_deadline_us.saturating_sub(sys::monotonic_us()))
        });
        let until_retry = (self.drain != Drain::Serving || self.accept_after_us > self.now_us)
            .then_some(RETRY_EVERY);
        // One of those that have not asked for anything may have had its time by then.
        let until_room = self.is_full().then_some(LOOK_FOR_ROOM_EVERY);
        [timeout, until_deadline, until_retry, until_room].into_iter().flatten().min()
    }

    fn handle(&mut self, event: Event, role: Role) {
        let (token, flags) = (event.u64, event.events);
        match token {
            TOKEN_WAKER => self.is_woken = true,
            TOKEN_HANDOVER if role == Role::App => self.take_handed_over(),
            TOKEN_HANDOVER => {}
            TOKEN_LISTENERS.. => {
                if role == Role::App && self.has_accept_interest {
                    let index = usize::try_from(token - TOKEN_LISTENERS).unwrap_or(usize::MAX);
                    if self.ready.is_empty() {
                        self.accept(index, ACCEPTS_PER_TURN);
                    }
                }
            }
            _ => self.handle_conn(token, flags),
        }
    }

    #[allow(clippy::cast_possible_truncation)] // the token's halves are 32 bits each
    fn handle_conn(&mut self, token: u64, flags: u32) {
        let (index, generation) = (token as u32, (token >> 32) as u32);
        let Some(slot) = self.slots.get_mut(index as usize) else { return };
        if slot.generation != generation {
            return; // of a connection that was closed earlier in this batch
        }
        if flags & (sys::READ | sys::BROKEN) != 0 {
            slot.is_unread = true;
        }
        if flags & (sys::PEER_ENDED | sys::BROKEN) != 0 {
            slot.is_ended.store(true, Release);
        }
        let Some(conn) = slot.conn.take() else { return };
        let is_writable = flags & (sys::WRITE | sys::BROKEN) != 0;
        if !is_writable || !conn.is_answering() {
            return self.guarded(index, conn, |_, _, _, _| Next::Wait);
        }
        if self.slices_left == 0 {
            return self.guarded(index, conn, |_, _, _, _| Next::Yield);
        }
        let mut is_slice = false;
        self.guarded(index, conn, |conn, shared, _, now_us| {
            let next = conn.on_writable(shared, now_us);
            is_slice = next == Next::Yield;
            next
        });
        self.slices_left -= u32::from(is_slice);
    }

    /// Runs `step` on a connection, then all that follows from it. A panic costs this connection only.
    fn guarded(
        &mut self,
        index: u32,
        mut conn: Box<Conn>,
        step: impl FnOnce(&mut Conn, &Shared, &mut Pool, u64) -> Next,
    ) {
        let result = catch_unwind(AssertUnwindSafe(|| {
            let next = step(&mut conn, &self.shared, &mut self.pool, self.now_us);
            self.drive(index, conn, next)
        }));
        match result {
            Ok(Some(call)) => self.ready.push(call),
            Ok(None) => {}
            // The connection was dropped, and so closed, by the panic.
            Err(_) => self.forget(index),
        }
    }

    /// Follows a connection until it waits, is ready for a call, or is gone.
    fn drive(&mut self, index: u32, mut conn: Box<Conn>, mut next: Next) -> Option<Call> {
        loop {
            match next {
                Next::Call => return Some(conn),
                Next::Close => {
                    self.close(index, conn);
                    return None;
                }
                Next::Yield => {
                    self.yield_turn(index, conn);
                    return None;
                }
                Next::Wait if conn.has_leftover() => {
                    next = conn.advance(&self.shared, &mut self.pool, self.now_us);
                }
                // Before what has come is read: of a client whose next request is always there, nothing else would be
                // passed on, ever.
                Next::Wait if self.is_to_leave(&conn) && self.hand_over(index, &mut conn) => {
                    return None;
                }
                Next::Wait if self.slots[index as usize].is_unread && conn.reads() => {
                    let is_ended = self.slots[index as usize].is_ended.load(Relaxed);
                    next = conn.on_readable(&self.shared, &mut self.pool, self.now_us);
                    self.slots[index as usize].is_unread = conn.is_unread || is_ended;
                }
                Next::Wait => {
                    self.put_back(index, conn);
                    return None;
                }
            }
        }
    }

    /// Has a connection come back after the others: changing the interest reports again what is there.
    fn yield_turn(&mut self, index: u32, conn: Box<Conn>) {
        self.slots[index as usize].is_unread = false;
        self.slots[index as usize].is_write_armed = false;
        if !conn.is_answering()
            && self.epoll.modify(conn.raw_fd(), sys::READ | sys::EDGE, conn.token).is_err()
        {
            self.close(index, conn);
            return;
        }
        self.put_back(index, conn);
    }
}
