//! Orders: how a worker leaves its connections to others, or ends them.

use std::io;

use super::accept::{ACCEPTS_PER_TURN, Listener};
use super::order::{Drain, Order};
use super::{Call, Reactor, Role, Turn};
use crate::conn::Conn;
use crate::stats::cell;
use crate::sys;

/// While others are too busy to take connections, these are served here, for so long; then answers say close.
const PASS_PATIENCE_US: u64 = 10_000_000;

/// How long idle connections may bring one more request when the server stops.
pub(super) const LAST_REQUEST_US: u64 = 2_000_000;

/// Once new handshakes are refused, those that had begun are waited for so long. Short, as clients whose handshake was
/// dropped are refused only after it.
const LAST_HANDSHAKES_US: u64 = 20_000;

impl Reactor {
    /// Whether this worker has stopped accepting for good.
    #[must_use]
    pub fn is_shut(&self) -> bool {
        !self.has_accept_interest
            && matches!(self.drain, Drain::HandingOver { .. } | Drain::Shut | Drain::Stopping)
    }

    /// Begins what is ordered.
    pub(super) fn apply_order(&mut self, order: Order) {
        if order == self.drain.order() {
            return;
        }
        self.now_us = sys::monotonic_us();
        let since_us = self.now_us;
        match order {
            Order::Serve => {}
            Order::HandOver => {
                self.drain = Drain::HandingOver { since_us };
                self.set_accept_interest(false);
            }
            Order::Close => {
                self.drain = Drain::LastRequests { since_us };
                self.look_for_refusal();
                self.shorten_idle(since_us + LAST_REQUEST_US);
            }
            Order::Stop => {
                self.drain = Drain::Stopping;
                self.set_accept_interest(false);
                self.close_where(|_| true);
            }
        }
    }

    fn shorten_idle(&mut self, last_us: u64) {
        for conn in self.slots.iter_mut().filter_map(|slot| slot.conn.as_mut()) {
            if conn.is_idle() {
                conn.deadline_us = conn.deadline_us.min(last_us);
            }
        }
        self.next_deadline_us = self.next_deadline_us.min(last_us);
    }

    /// Goes on with what is ordered, and returns whether it is done.
    pub(super) fn finish_orders(&mut self, role: Role) -> Turn {
        // Only what was seen empty in this turn counts as empty.
        let mut is_queue_empty = false;
        match self.drain {
            Drain::Serving => return Turn::Idle,
            Drain::HandingOver { .. } => self.pass_idle(),
            Drain::Stopping => self.close_where(|_| true),
            Drain::LastRequests { .. }
            | Drain::LastHandshakes { .. }
            | Drain::LastWaiting { .. }
                if role == Role::App =>
            {
                is_queue_empty = self.empty_queues();
                if let Some(turn) = self.deliver(role) {
                    return turn;
                }
                self.end_grace();
                if is_queue_empty && matches!(self.drain, Drain::LastWaiting { .. }) {
                    self.shut();
                }
            }
            Drain::LastRequests { .. }
            | Drain::LastHandshakes { .. }
            | Drain::LastWaiting { .. }
            | Drain::Shut => {}
        }
        let may_leave = match self.drain {
            Drain::LastRequests { .. } => is_queue_empty,
            Drain::LastHandshakes { .. } | Drain::LastWaiting { .. } => false,
            _ => true,
        };
        if may_leave && self.open == 0 && self.ready.is_empty() { Turn::Done } else { Turn::Idle }
    }

    /// Looks once at every queue from which a request could still come; true when nobody was there.
    fn empty_queues(&mut self) -> bool {
        let open_before = self.open;
        for listener in 0..self.listeners.len() {
            self.accept(listener, ACCEPTS_PER_TURN);
        }
        self.take_handed_over();
        self.open == open_before && self.ready.is_empty()
    }

    /// Close: once the grace is over, only those who wait at that moment are accepted.
    pub(super) fn end_grace(&mut self) {
        self.look_for_refusal();
        let until_us = match self.drain {
            Drain::LastRequests { since_us } => since_us + LAST_REQUEST_US,
            Drain::LastHandshakes { since_us } => since_us + LAST_HANDSHAKES_US,
            Drain::LastWaiting { left: 0 } => return self.shut(),
            _ => return,
        };
        if self.now_us > until_us {
            let left = self.count_waiting();
            self.drain = Drain::LastWaiting { left };
            if left == 0 {
                self.shut();
            }
        }
    }

    /// Connections in the accept queues; those of a unix socket cannot be counted, and are as many as there may be.
    fn count_waiting(&self) -> usize {
        let depth = |listener: &Listener| match sys::listen_queue(listener.fd) {
            Ok((depth, _)) if listener.is_tcp => depth as usize,
            _ => usize::MAX,
        };
        self.listeners.iter().map(depth).fold(0, usize::saturating_add)
    }

    fn shut(&mut self) {
        self.drain = Drain::Shut;
        self.set_accept_interest(false);
    }

    /// The arbiter has new handshakes refused before the whole server stops.
    fn look_for_refusal(&mut self) {
        if !matches!(self.drain, Drain::LastRequests { .. }) {
            return;
        }
        let mut sockets = self.listeners.iter().filter(|listener| listener.is_tcp).peekable();
        if sockets.peek().is_some() && sockets.all(|listener| sys::refuses_handshakes(listener.fd))
        {
            self.drain = Drain::LastHandshakes { since_us: self.now_us };
        }
    }

    pub(super) fn is_to_leave(&self, conn: &Conn) -> bool {
        matches!(self.drain, Drain::HandingOver { .. })
            && self.handover.is_some()
            && conn.is_at_head()
    }

    fn pass_idle(&mut self) {
        for index in 0..self.slots.len() {
            let Some(conn) = &self.slots[index].conn else { continue };
            if !self.is_to_leave(conn) {
                // Nobody to pass to: an idle connection is closed, as it would be at the end of its keep-alive.
                if self.handover.is_none()
                    && conn.is_idle()
                    && let Some(conn) = self.slots[index].conn.take()
                {
                    self.close(u32::try_from(index).unwrap_or(u32::MAX), conn);
                }
                continue;
            }
            let Some(mut conn) = self.slots[index].conn.take() else { continue };
            if !self.hand_over(u32::try_from(index).unwrap_or(u32::MAX), &mut conn) {
                self.slots[index].conn = Some(conn);
                return; // the queue is full: the others wait for the next turn
            }
        }
    }

    /// Passes a connection on; false when it has to stay, and then its next answer ends it.
    pub(super) fn hand_over(&mut self, index: u32, conn: &mut Conn) -> bool {
        let Some(sockets) = self.handover else { return false };
        if let Err(error) = sockets.hand_over(conn.fd(), conn.partial(), 0) {
            let is_full = error.kind() == io::ErrorKind::WouldBlock;
            let is_late = matches!(
                self.drain,
                Drain::HandingOver { since_us } if self.now_us > since_us + PASS_PATIENCE_US
            );
            conn.handover_failed = !is_full || is_late;
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
    pub fn hand_over_call(&mut self, mut call: Call) -> Result<(), Call> {
        let (Some(sockets), Some(bytes)) = (self.handover, call.wire()) else { return Err(call) };
        if sockets.hand_over(call.fd(), &bytes, call.ready_us).is_err() {
            return Err(call);
        }
        self.epoll.remove(call.raw_fd());
        call.release(&mut self.pool);
        self.shared.table.add(cell::handed_over, 1);
        self.forget(call.token as u32);
        Ok(())
    }
}
