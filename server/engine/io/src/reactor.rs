//! All connections that wait for their clients, driven by whichever thread has the lead.
//!
//! The reactor is behind one lock, the lead (see `server`). A turn polls once and handles what came, until a
//! request is ready for a call. Connections in a call belong to their app thread; their slot only remembers what
//! happened on the socket meanwhile, as edge-triggered readiness is told once.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use crate::buffer::Pool;
use crate::conn::{Conn, Next, Phase};
use crate::handover::{Pair, Passed};
use crate::shared::Shared;
use crate::stats::cell;
use crate::sys::{self, Address, Epoll, Event};

/// Tokens below this are connections: `generation << 32 | index`.
const TOKEN_BELL: u64 = u64::MAX;
const TOKEN_HANDOVER: u64 = u64::MAX - 1;
const TOKEN_LISTENERS: u64 = u64::MAX - 1024;

/// Events taken at once.
const BATCH: usize = 64;

/// Deadlines are looked at no more often than this.
const SCAN_EVERY_US: u64 = 50_000;

/// While draining, what could not be passed is tried again this often.
const RETRY_EVERY: Duration = Duration::from_millis(5);

/// While others are too busy to take connections, these are served here, for so long; then answers say close.
const PASS_PATIENCE_US: u64 = 10_000_000;

/// How long idle connections may bring one more request when the server stops.
const LAST_REQUEST_US: u64 = 2_000_000;

/// Once new handshakes are refused, those that had begun are waited for so long. Short, as clients whose handshake was
/// dropped are refused only after it.
const LAST_HANDSHAKES_US: u64 = 20_000;

/// Slices of answers sent between two polls; what else can be sent waits for the next one.
const SLICES_PER_POLL: u32 = 4;

/// Connections accepted in one go: few, so that workers which wake together share them.
const ACCEPTS_PER_TURN: usize = 4;

/// A deadline that is looked at so much too late: the process was stopped, or the whole machine.
const PAUSE_US: u64 = 1_000_000;

/// A pause after accept failed for want of descriptors or memory.
const ACCEPT_PAUSE_US: u64 = 100_000;

/// Passed connections taken in one go.
const TAKES_PER_TURN: usize = 16;

/// A connection in a call.
pub type Call = Box<Conn>;

/// Who leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// An app thread, which takes the first ready request itself.
    App,
    /// The helper: all app threads are in calls, or on their way.
    Helper,
}

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

/// What a turn came to.
pub enum Turn {
    /// A request for the leading app thread.
    Call(Call),
    /// Nothing to do now.
    Idle,
    /// All orders are carried out; nothing is left.
    Done,
}

#[derive(Default)]
struct Slot {
    generation: u32,
    /// `None` while it is in a call, or free.
    conn: Option<Box<Conn>>,
    is_open: bool,
    /// The socket became readable and nobody has read it since.
    is_unread: bool,
    /// The client ended its side: a read that did not fill its room is not the last, its end is still to be read.
    is_ended: bool,
}

struct Listener {
    fd: RawFd,
    is_tcp: bool,
}

/// See the head of this file.
#[allow(clippy::struct_excessive_bools)] // independent facts, none of them a state
pub struct Reactor {
    epoll: Arc<Epoll>,
    context: Arc<Shared>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    pool: Pool,
    batch: [Event; BATCH],
    batch_at: usize,
    batch_len: usize,
    /// Slices that may still be sent before the next poll.
    slices_left: u32,
    listeners: Vec<Listener>,
    pair: Option<Pair>,
    /// Whether listeners and the shared pair are polled.
    is_welcoming: bool,
    /// Accepting pauses until then.
    accept_after_us: u64,
    open: usize,
    now_us: u64,
    /// `now_us` before the last wait.
    last_turn_us: u64,
    next_deadline_us: u64,
    order: Order,
    /// When it was given.
    order_us: u64,
    /// In `Close`: since when the kernel is known to refuse new handshakes on all TCP listeners; 0 when it does not.
    refusing_since_us: u64,
    /// In `Close`: nobody was waiting in the accept queues and the shared pair when last looked.
    is_queue_empty: bool,
    /// In `Close`: from now on nobody is taken any more.
    is_shut: bool,
    /// In `Close`, after a moment: how many of those who waited then are still to be accepted.
    accepts_left: Option<usize>,
    /// Ready requests beyond the one a turn returns.
    ready: Vec<Call>,
    is_bell_rung: bool,
    /// For messages of the shared pair.
    scratch: Vec<u8>,
}

impl Reactor {
    /// # Errors
    /// What `epoll_ctl(2)` says; a listener that is no socket.
    pub fn new(
        epoll: Arc<Epoll>,
        context: Arc<Shared>,
        listeners: &[RawFd],
        pair: Option<Pair>,
        bell: RawFd,
    ) -> io::Result<Self> {
        epoll.add(bell, sys::READ, TOKEN_BELL)?;
        let listeners = listeners
            .iter()
            .map(|&fd| {
                sys::set_nonblocking(fd)?;
                Ok(Listener { fd, is_tcp: sys::local_address(fd)? != Address::Unix })
            })
            .collect::<io::Result<Vec<_>>>()?;
        Ok(Self {
            epoll,
            context,
            slots: Vec::new(),
            free: Vec::new(),
            pool: Pool::default(),
            batch: [sys::NO_EVENT; BATCH],
            batch_at: 0,
            batch_len: 0,
            slices_left: SLICES_PER_POLL,
            listeners,
            pair,
            is_welcoming: false,
            accept_after_us: 0,
            open: 0,
            now_us: sys::monotonic_us(),
            last_turn_us: sys::monotonic_us(),
            next_deadline_us: u64::MAX,
            order: Order::Serve,
            order_us: 0,
            refusing_since_us: 0,
            is_queue_empty: false,
            is_shut: false,
            accepts_left: None,
            ready: Vec::new(),
            is_bell_rung: false,
            scratch: Vec::new(),
        })
    }

    /// Connections open, those in calls included.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open
    }

    /// Whether the bell was heard since this was last asked.
    pub fn take_bell(&mut self) -> bool {
        std::mem::take(&mut self.is_bell_rung)
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

    /// Whether this worker has stopped accepting for good.
    #[must_use]
    pub fn is_shut(&self) -> bool {
        self.order > Order::Serve
            && !self.is_welcoming
            && (self.is_shut || self.order != Order::Close)
    }

    /// Puts a connection back after its call; perhaps its next request is already there.
    pub fn take_back(&mut self, conn: Call, next: Next, now_us: u64) {
        #[allow(clippy::cast_possible_truncation)] // the token's lower half is the index
        let index = conn.token as u32;
        self.now_us = self.now_us.max(now_us);
        self.guarded(index, conn, |_, _, _, _| next);
    }

    /// Forgets a connection that was lost in its call.
    #[allow(clippy::cast_possible_truncation)] // the token's halves are 32 bits each
    pub fn abandon(&mut self, token: u64) {
        let (index, generation) = (token as u32, (token >> 32) as u32);
        if self
            .slots
            .get(index as usize)
            .is_some_and(|slot| slot.is_open && slot.generation == generation)
        {
            self.forget(index);
        }
    }

    /// Handles what there is, after waiting for it no longer than `timeout`.
    pub fn turn(&mut self, role: Role, order: Order, timeout: Option<Duration>) -> Turn {
        self.heed(order);
        self.shut_when_served();
        if let Some(turn) = self.deliver(role) {
            return turn;
        }
        if self.batch_at == self.batch_len {
            self.welcome(role == Role::App);
            self.poll(timeout);
        }
        if self.now_us >= self.next_deadline_us {
            self.scan_deadlines();
        }
        if self.context.take_pressure() {
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

    /// Takes passed connections, and up to `most` new ones, although no app thread is free: when requests never stop
    /// waiting, no thread would ever come to look for them. What they bring waits behind the others.
    pub fn take_some(&mut self, most: usize) {
        if matches!(self.order, Order::HandOver | Order::Stop) {
            return;
        }
        let earlier = std::mem::take(&mut self.ready);
        self.take_passed();
        if !self.is_shut && self.now_us >= self.accept_after_us {
            for _ in 0..most {
                for listener in 0..self.listeners.len() {
                    self.accept(listener, 1);
                }
            }
        }
        self.ready.splice(0..0, earlier);
    }

    /// The listeners are not this worker's any more.
    pub fn forget_listeners(&mut self) {
        self.listeners.clear();
    }

    /// An app thread takes the first ready request; the helper gathers them all.
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
        let until_retry = (self.order != Order::Serve || self.accept_after_us > self.now_us)
            .then_some(RETRY_EVERY);
        [timeout, until_deadline, until_retry].into_iter().flatten().min()
    }

    fn handle(&mut self, event: Event, role: Role) {
        let (token, flags) = (event.u64, event.events);
        match token {
            TOKEN_BELL => self.is_bell_rung = true,
            TOKEN_HANDOVER if role == Role::App => self.take_passed(),
            TOKEN_HANDOVER => {}
            TOKEN_LISTENERS.. => {
                if role == Role::App && self.is_welcoming {
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
        slot.is_ended |= flags & (sys::PEER_ENDED | sys::BROKEN) != 0;
        let Some(conn) = slot.conn.take() else { return };
        let is_writable = flags & (sys::WRITE | sys::BROKEN) != 0;
        if !is_writable || conn.phase != Phase::Write {
            return self.guarded(index, conn, |_, _, _, _| Next::Wait);
        }
        if self.slices_left == 0 {
            return self.guarded(index, conn, |_, _, _, _| Next::Yield);
        }
        let mut is_slice = false;
        self.guarded(index, conn, |conn, context, _, now_us| {
            let next = conn.on_writable(context, now_us);
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
            let next = step(&mut conn, &self.context, &mut self.pool, self.now_us);
            self.settle(index, conn, next)
        }));
        match result {
            Ok(Some(call)) => self.ready.push(call),
            Ok(None) => {}
            // The connection was dropped, and so closed, by the panic.
            Err(_) => self.forget(index),
        }
    }

    /// Follows a connection until it waits, is ready for a call, or is gone.
    fn settle(&mut self, index: u32, mut conn: Box<Conn>, mut next: Next) -> Option<Call> {
        loop {
            let slot = &mut self.slots[index as usize];
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
                    next = conn.advance(&self.context, &mut self.pool, self.now_us);
                }
                Next::Wait if slot.is_unread && conn.phase.reads() => {
                    let is_ended = slot.is_ended;
                    next = conn.on_readable(&self.context, &mut self.pool, self.now_us);
                    self.slots[index as usize].is_unread = conn.has_more || is_ended;
                }
                Next::Wait if self.is_to_leave(&conn) && self.pass(index, &mut conn) => {
                    return None;
                }
                Next::Wait => {
                    self.put_back(index, conn);
                    return None;
                }
            }
        }
    }

    /// Has a connection come back after the others: changing the interest reports again what is there.
    fn yield_turn(&mut self, index: u32, mut conn: Box<Conn>) {
        self.slots[index as usize].is_unread = false;
        conn.is_write_armed = false;
        if conn.phase != Phase::Write
            && self.epoll.modify(conn.raw_fd(), sys::READ | sys::EDGE, conn.token).is_err()
        {
            self.close(index, conn);
            return;
        }
        self.put_back(index, conn);
    }

    fn put_back(&mut self, index: u32, mut conn: Box<Conn>) {
        if conn.phase == Phase::Write && !conn.is_write_armed {
            conn.is_write_armed = true;
            let flags = sys::READ | sys::WRITE | sys::EDGE;
            if self.epoll.modify(conn.raw_fd(), flags, conn.token).is_err() {
                self.close(index, conn);
                return;
            }
        }
        conn.release_if_idle(&mut self.pool);
        if self.order == Order::Close && conn.is_idle() {
            conn.deadline_us = conn.deadline_us.min(self.now_us + LAST_REQUEST_US);
        }
        self.next_deadline_us = self.next_deadline_us.min(conn.deadline_us);
        self.slots[index as usize].conn = Some(conn);
    }

    fn close(&mut self, index: u32, mut conn: Box<Conn>) {
        conn.release(&mut self.pool);
        // The description may live on in another process; without this its events would go on coming here.
        self.epoll.remove(conn.raw_fd());
        sys::shut_down(conn.raw_fd());
        drop(conn);
        self.forget(index);
    }

    fn forget(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        slot.generation = slot.generation.wrapping_add(1) & 0x7fff_ffff;
        slot.conn = None;
        slot.is_open = false;
        slot.is_unread = false;
        slot.is_ended = false;
        self.free.push(index);
        self.open -= 1;
        self.context.table.sub(cell::connections, 1);
    }

    /// Gives a new connection its slot and looks at once whether its request is there.
    fn adopt(&mut self, mut conn: Box<Conn>) {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        });
        let slot = &mut self.slots[index as usize];
        conn.token = u64::from(slot.generation) << 32 | u64::from(index);
        slot.is_open = true;
        slot.is_unread = true;
        self.open += 1;
        self.context.table.add(cell::connections, 1);
        let added = self.epoll.add(conn.raw_fd(), sys::READ | sys::EDGE, conn.token);
        let next = if added.is_ok() { Next::Wait } else { Next::Close };
        self.guarded(index, conn, |_, _, _, _| next);
    }

    /// Polls listeners and the shared pair only while an app thread is free: what nobody can serve now is left to
    /// the other workers, and polling it would only spin.
    fn welcome(&mut self, is_free: bool) {
        let has_room = self.has_room();
        let is_wanted = match self.order {
            Order::Serve => is_free && has_room && self.now_us >= self.accept_after_us,
            Order::Close => {
                is_free && has_room && !self.is_shut && self.now_us >= self.accept_after_us
            }
            Order::HandOver | Order::Stop => false,
        };
        if is_wanted == self.is_welcoming {
            return;
        }
        self.is_welcoming = is_wanted;
        let tokens = self.listeners.iter().map(|l| l.fd).zip(TOKEN_LISTENERS..);
        for (fd, token) in tokens.chain(self.pair.map(|pair| (pair.receive, TOKEN_HANDOVER))) {
            if !is_wanted {
                self.epoll.remove(fd);
            } else if self.epoll.add(fd, sys::READ & !sys::PEER_ENDED, token).is_err() {
                self.accept_after_us = self.now_us + ACCEPT_PAUSE_US;
            }
        }
    }

    /// Takes connections of one listener; stops when one of them brings a ready request.
    fn accept(&mut self, listener: usize, most: usize) {
        let Some(&Listener { fd, is_tcp }) = self.listeners.get(listener) else { return };
        for count in 0..most {
            let has_call = count > 0 && !self.ready.is_empty();
            if has_call || self.accepts_left == Some(0) || !self.has_room() {
                return;
            }
            match sys::accept(fd) {
                Ok((socket, address)) => {
                    self.make_room();
                    if is_tcp {
                        sys::set_no_delay(socket.as_raw_fd());
                    }
                    self.context.table.add(cell::accepted, 1);
                    self.accepts_left = self.accepts_left.map(|left| left.saturating_sub(1));
                    self.is_queue_empty = false;
                    self.open_conn(socket, &address);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // The client gave up while it waited.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(_) => {
                    self.accept_after_us = self.now_us + ACCEPT_PAUSE_US;
                    return;
                }
            }
        }
    }

    /// The connection that has been idle longest since its last answer.
    fn longest_idle(&self) -> Option<usize> {
        let idle = self.slots.iter().enumerate().filter_map(|(index, slot)| {
            let conn = slot.conn.as_ref()?;
            (conn.answered > 0 && conn.is_idle()).then_some((conn.deadline_us, index))
        });
        idle.min().map(|(_, index)| index)
    }

    /// Whether one more connection is within bounds, or another one can be closed for it.
    fn has_room(&self) -> bool {
        self.open < self.context.settings.max_connections || self.longest_idle().is_some()
    }

    /// Closes an idle connection for one that was just accepted: at the limit a new client is worth more than one that
    /// has its answer and keeps its connection. Never before: perhaps nobody is waiting.
    fn make_room(&mut self) {
        if self.open >= self.context.settings.max_connections
            && let Some(index) = self.longest_idle()
            && let Some(conn) = self.slots[index].conn.take()
        {
            self.close(u32::try_from(index).unwrap_or(u32::MAX), conn);
        }
    }

    fn open_conn(&mut self, socket: OwnedFd, address: &Address) {
        let Ok(local) = sys::local_address(socket.as_raw_fd()) else { return };
        let conn = Conn::new(socket, address, local, &self.context, self.now_us);
        self.adopt(Box::new(conn));
    }

    /// Takes passed connections until a request is ready. The helper does so too: nothing may wait here for ever.
    fn take_passed(&mut self) {
        let Some(pair) = self.pair else { return };
        if self.now_us < self.accept_after_us {
            return;
        }
        for _ in 0..TAKES_PER_TURN {
            if !self.ready.is_empty() {
                return;
            }
            match pair.take(&mut self.scratch) {
                Ok(Some(passed)) => self.adopt_passed(passed),
                Ok(None) => return,
                Err(error) => {
                    // Most likely out of descriptors: then the next one would be lost too.
                    self.accept_after_us = self.now_us + ACCEPT_PAUSE_US;
                    if error.kind() == io::ErrorKind::UnexpectedEof {
                        self.epoll.remove(pair.receive);
                        self.pair = None;
                    }
                    return;
                }
            }
        }
    }

    fn adopt_passed(&mut self, passed: Passed) {
        let raw = passed.fd.as_raw_fd();
        let (Ok(local), Ok(address)) = (sys::local_address(raw), sys::peer_address(raw)) else {
            return; // the client left while its connection was on its way
        };
        let mut conn = Box::new(Conn::new(passed.fd, &address, local, &self.context, self.now_us));
        conn.preload(&passed.bytes, &mut self.pool);
        conn.deadline_us = self.now_us
            + if passed.bytes.is_empty() {
                self.context.settings.keep_alive_us.max(self.context.settings.header_timeout_us)
            } else {
                self.context.settings.header_timeout_us
            };
        conn.passed_ready_us = passed.ready_us;
        conn.answered = 1;
        self.adopt(conn);
    }

    fn scan_deadlines(&mut self) {
        let now_us = self.now_us;
        if now_us.saturating_sub(self.next_deadline_us) > PAUSE_US {
            // Nobody looked, so the process did not run, since the last turn at the earliest. What the clients have
            // sent meanwhile is still to be read.
            let pause_us = now_us.saturating_sub(self.last_turn_us);
            for conn in self.slots.iter_mut().filter_map(|slot| slot.conn.as_mut()) {
                conn.excuse(pause_us);
            }
        }
        let mut nearest_us = u64::MAX;
        for index in 0..self.slots.len() {
            let Some(conn) = &self.slots[index].conn else { continue };
            if conn.deadline_us > now_us {
                nearest_us = nearest_us.min(conn.deadline_us);
                continue;
            }
            let Some(conn) = self.slots[index].conn.take() else { continue };
            self.guarded(u32::try_from(index).unwrap_or(u32::MAX), conn, Conn::on_deadline);
            if let Some(conn) = &self.slots[index].conn {
                nearest_us = nearest_us.min(conn.deadline_us);
            }
        }
        self.next_deadline_us =
            if nearest_us == u64::MAX { u64::MAX } else { nearest_us.max(now_us + SCAN_EVERY_US) };
    }

    /// Memory and spool are full: gives up clients that hold part of them and do not move.
    fn make_way(&mut self) {
        let now_us = self.now_us;
        for index in 0..self.slots.len() {
            let slot = &mut self.slots[index];
            if slot.conn.as_mut().is_some_and(|conn| conn.is_in_the_way(&self.context, now_us))
                && let Some(conn) = slot.conn.take()
            {
                self.guarded(u32::try_from(index).unwrap_or(u32::MAX), conn, Conn::give_up);
            }
        }
    }

    /// Begins what is ordered.
    fn heed(&mut self, order: Order) {
        if order == self.order {
            return;
        }
        self.order = order;
        self.now_us = sys::monotonic_us();
        self.order_us = self.now_us;
        match order {
            Order::Serve => {}
            Order::HandOver => self.welcome(false),
            Order::Close => {
                self.look_for_refusal();
                let last_us = self.now_us + LAST_REQUEST_US;
                for conn in self.slots.iter_mut().filter_map(|slot| slot.conn.as_mut()) {
                    if conn.is_idle() {
                        conn.deadline_us = conn.deadline_us.min(last_us);
                    }
                }
                self.next_deadline_us = self.next_deadline_us.min(last_us);
            }
            Order::Stop => {
                self.welcome(false);
                self.close_where(|_| true);
            }
        }
    }

    /// Goes on with what is ordered, and tells when it is done.
    fn finish_orders(&mut self, role: Role) -> Turn {
        match self.order {
            Order::Serve => return Turn::Idle,
            Order::HandOver => self.pass_idle(),
            Order::Close if role == Role::App && !self.is_shut => {
                self.empty_queues();
                if let Some(turn) = self.deliver(role) {
                    return turn;
                }
                self.shut_when_served();
            }
            Order::Close => {}
            Order::Stop => self.close_where(|_| true),
        }
        // Only what was seen empty in this turn counts as empty.
        let is_waiting = self.refusing_since_us > 0;
        let is_queue_empty =
            self.is_shut || (role == Role::App && self.is_queue_empty && !is_waiting);
        let is_done = self.open == 0
            && self.ready.is_empty()
            && (self.order != Order::Close || is_queue_empty);
        if is_done { Turn::Done } else { Turn::Idle }
    }

    /// Looks once at every queue from which a request could still come.
    fn empty_queues(&mut self) {
        let open_before = self.open;
        for listener in 0..self.listeners.len() {
            self.accept(listener, ACCEPTS_PER_TURN);
        }
        self.take_passed();
        self.is_queue_empty = self.open == open_before && self.ready.is_empty();
    }

    /// Under load the accept queues may never be seen empty: those who wait at this moment are served, and no more.
    fn shut_when_served(&mut self) {
        if self.order != Order::Close || self.is_shut {
            return;
        }
        self.look_for_refusal();
        let until_us = match self.refusing_since_us {
            // For as long as clients may bring a last request, new ones are welcome too.
            0 => self.order_us + LAST_REQUEST_US,
            since_us => since_us + LAST_HANDSHAKES_US,
        };
        if self.now_us <= until_us {
            return;
        }
        if self.accepts_left.is_none() {
            let depth = |listener: &Listener| match sys::listen_queue(listener.fd) {
                Ok((depth, _)) if listener.is_tcp => depth as usize,
                _ => usize::MAX,
            };
            let waiting = self.listeners.iter().map(depth).fold(0, usize::saturating_add);
            self.accepts_left = Some(waiting);
        }
        self.is_shut = self.is_queue_empty || self.accepts_left == Some(0);
        if self.is_shut {
            self.welcome(false);
        }
    }

    /// The arbiter has new handshakes refused before the whole server stops.
    fn look_for_refusal(&mut self) {
        let mut sockets = self.listeners.iter().filter(|listener| listener.is_tcp).peekable();
        if self.refusing_since_us == 0
            && sockets.peek().is_some()
            && sockets.all(|listener| sys::refuses_handshakes(listener.fd))
        {
            self.refusing_since_us = self.now_us;
        }
    }

    fn close_where(&mut self, is_meant: impl Fn(&Conn) -> bool) {
        for index in 0..self.slots.len() {
            let slot = &mut self.slots[index];
            if slot.conn.as_deref().is_some_and(&is_meant)
                && let Some(conn) = slot.conn.take()
            {
                self.close(u32::try_from(index).unwrap_or(u32::MAX), conn);
            }
        }
    }

    fn is_to_leave(&self, conn: &Conn) -> bool {
        self.order == Order::HandOver && self.pair.is_some() && conn.phase == Phase::Head
    }

    fn pass_idle(&mut self) {
        for index in 0..self.slots.len() {
            let Some(conn) = &self.slots[index].conn else { continue };
            if !self.is_to_leave(conn) {
                // Nobody to pass to: an idle connection is closed, as it would be at the end of its keep-alive.
                if self.pair.is_none()
                    && conn.is_idle()
                    && let Some(conn) = self.slots[index].conn.take()
                {
                    self.close(u32::try_from(index).unwrap_or(u32::MAX), conn);
                }
                continue;
            }
            let Some(mut conn) = self.slots[index].conn.take() else { continue };
            if !self.pass(u32::try_from(index).unwrap_or(u32::MAX), &mut conn) {
                self.slots[index].conn = Some(conn);
                return; // the queue is full: the others wait for the next turn
            }
        }
    }

    /// Passes a connection on; false when it has to stay, and then its next answer ends it.
    fn pass(&mut self, index: u32, conn: &mut Conn) -> bool {
        let Some(pair) = self.pair else { return false };
        if let Err(error) = pair.pass(conn.fd(), conn.partial(), 0) {
            let is_full = error.kind() == io::ErrorKind::WouldBlock;
            conn.is_stuck_here = !is_full || self.now_us > self.order_us + PASS_PATIENCE_US;
            return false;
        }
        self.epoll.remove(conn.raw_fd());
        conn.release(&mut self.pool);
        self.context.table.add(cell::handed_over, 1);
        self.forget(index);
        true
    }

    /// Passes a connection whose request waits for an app thread; gives it back when that cannot be.
    ///
    /// # Errors
    /// The call, which has to be served here.
    #[allow(clippy::cast_possible_truncation)] // the token's lower half is the index
    pub fn pass_call(&mut self, mut call: Call) -> Result<(), Call> {
        let (Some(pair), Some(bytes)) = (self.pair, call.wire()) else { return Err(call) };
        if pair.pass(call.fd(), &bytes, call.ready_us).is_err() {
            return Err(call);
        }
        self.epoll.remove(call.raw_fd());
        call.release(&mut self.pool);
        self.context.table.add(cell::handed_over, 1);
        self.forget(call.token as u32);
        Ok(())
    }
}
