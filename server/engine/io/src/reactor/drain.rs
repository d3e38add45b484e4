//! Orders: how a worker leaves its connections to others, or ends them.

use std::io;

use super::accept::{ACCEPTS_PER_TURN, Listener};
use super::{Call, Reactor, Role, Turn};
use crate::conn::{Conn, Phase};
use crate::stats::cell;
use crate::sys;

/// While others are too busy to take connections, these are served here, for so long; then answers say close.
const PASS_PATIENCE_US: u64 = 10_000_000;

/// How long idle connections may bring one more request when the server stops.
pub(super) const LAST_REQUEST_US: u64 = 2_000_000;

/// Once new handshakes are refused, those that had begun are waited for so long. Short, as clients whose handshake was
/// dropped are refused only after it.
const LAST_HANDSHAKES_US: u64 = 20_000;

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

impl Reactor {
    /// Whether this worker has stopped accepting for good.
    #[must_use]
    pub fn is_shut(&self) -> bool {
        self.order > Order::Serve
            && !self.is_welcoming
            && (self.is_shut || self.order != Order::Close)
    }

    /// Begins what is ordered.
    pub(super) fn heed(&mut self, order: Order) {
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
    pub(super) fn finish_orders(&mut self, role: Role) -> Turn {
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
    pub(super) fn shut_when_served(&mut self) {
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

    pub(super) fn is_to_leave(&self, conn: &Conn) -> bool {
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
    pub(super) fn pass(&mut self, index: u32, conn: &mut Conn) -> bool {
        let Some(pair) = self.pair else { return false };
        if let Err(error) = pair.pass(conn.fd(), conn.partial(), 0) {
            let is_full = error.kind() == io::ErrorKind::WouldBlock;
            conn.is_stuck_here = !is_full || self.now_us > self.order_us + PASS_PATIENCE_US;
            return false;
        }
        self.epoll.remove(conn.raw_fd());
        conn.release(&mut self.pool);
        self.shared.table.add(cell::handed_over, 1);
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
        self.shared.table.add(cell::handed_over, 1);
        self.forget(call.token as u32);
        Ok(())
    }
}
