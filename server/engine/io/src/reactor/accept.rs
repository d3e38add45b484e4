//! New connections: of the listeners, and of other workers.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use super::order::Drain;
use super::{Reactor, TOKEN_HANDOVER, TOKEN_LISTENERS};
use crate::conn::Conn;
use crate::handover::HandedOver;
use crate::stats::cell;
use crate::sys::{self, Address};

/// Connections accepted in one go: few, so that workers which wake together share them.
pub(super) const ACCEPTS_PER_TURN: usize = 4;

/// A pause after accept failed for want of descriptors or memory.
const ACCEPT_PAUSE_US: u64 = 100_000;

/// A head is waited for so long where another client waits for the connection.
const HEAD_UNDER_PRESSURE_US: u64 = 2_000_000;

/// Connections that were handed over, taken in one go.
const TAKES_PER_TURN: usize = 16;

pub(super) struct Listener {
    pub(super) fd: RawFd,
    pub(super) is_tcp: bool,
}

impl Reactor {
    /// Polls listeners and the hand-over sockets only while an app thread is free: what nobody can serve now is left to
    /// the other workers, and polling it would only spin.
    pub(super) fn set_accept_interest(&mut self, is_free: bool) {
        let is_wanted = is_free
            && self.drain.accepts()
            && self.now_us >= self.accept_after_us
            && self.has_room();
        if is_wanted == self.has_accept_interest {
            return;
        }
        self.has_accept_interest = is_wanted;
        let tokens = self.listeners.iter().map(|l| l.fd).zip(TOKEN_LISTENERS..);
        for (fd, token) in
            tokens.chain(self.handover.map(|sockets| (sockets.receive, TOKEN_HANDOVER)))
        {
            if !is_wanted {
                self.epoll.remove(fd);
            } else if self.epoll.add(fd, sys::READ & !sys::PEER_ENDED, token).is_err() {
                self.accept_after_us = self.now_us + ACCEPT_PAUSE_US;
            }
        }
    }

    /// Takes connections of one listener; stops when one of them brings a ready request.
    pub(super) fn accept(&mut self, listener: usize, most: usize) {
        let Some(&Listener { fd, is_tcp }) = self.listeners.get(listener) else { return };
        for count in 0..most {
            let has_call = count > 0 && !self.ready.is_empty();
            if has_call || !self.drain.accepts() || !self.has_room() {
                return;
            }
            match sys::accept(fd) {
                Ok((socket, address)) => {
                    self.make_room();
                    if is_tcp {
                        sys::set_no_delay(socket.as_raw_fd());
                    }
                    self.shared.table.add(cell::accepted, 1);
                    self.drain.count_accepted();
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

    fn open_conn(&mut self, socket: OwnedFd, address: &Address) {
        let Ok(local) = sys::local_address(socket.as_raw_fd()) else { return };
        let conn = Conn::new(socket, address, local, &self.shared, self.now_us);
        self.adopt(Box::new(conn));
    }

    /// Whether one more connection is within bounds, or another one can be closed for it.
    fn has_room(&self) -> bool {
        !self.is_full() || self.first_to_make_way().is_some()
    }

    /// Whether there are as many connections as there may be.
    pub(super) fn is_full(&self) -> bool {
        self.open >= self.shared.settings.max_connections
    }

    /// Closes a connection for one that was just accepted: at the limit a new client is worth more than one that has its
    /// answer and keeps its connection, or one that has not asked for anything. Never before: perhaps nobody is waiting.
    fn make_room(&mut self) {
        if self.is_full()
            && let Some(index) = self.first_to_make_way()
            && let Some(conn) = self.slots[index].conn.take()
        {
            self.close(u32::try_from(index).unwrap_or(u32::MAX), conn);
        }
    }

    /// The connection that has been idle longest since its last answer; without one, that which has been silent longest,
    /// or in the middle of a head, though it has had a moment.
    fn first_to_make_way(&self) -> Option<usize> {
        let header_timeout_us = self.shared.settings.header_timeout_us;
        let candidates = self.slots.iter().enumerate().filter_map(|(index, slot)| {
            let conn = slot.conn.as_ref().filter(|conn| conn.is_at_head())?;
            let is_kept = conn.answered > 0 && conn.is_idle();
            let head_began_us = conn.deadline_us.saturating_sub(header_timeout_us);
            let has_had_its_time = head_began_us + HEAD_UNDER_PRESSURE_US <= self.now_us;
            (is_kept || has_had_its_time).then_some((!is_kept, conn.deadline_us, index))
        });
        candidates.min().map(|(_, _, index)| index)
    }

    /// Takes passed connections until a request is ready. The watchdog does so too: nothing may wait here for ever.
    pub(super) fn take_handed_over(&mut self) {
        let Some(sockets) = self.handover else { return };
        if self.now_us < self.accept_after_us {
            return;
        }
        for _ in 0..TAKES_PER_TURN {
            if !self.ready.is_empty() {
                return;
            }
            match sockets.receive(&mut self.scratch) {
                Ok(Some(handed_over)) => self.adopt_handed_over(handed_over),
                Ok(None) => return,
                Err(error) => {
                    // Most likely out of descriptors: then the next one would be lost too.
                    self.accept_after_us = self.now_us + ACCEPT_PAUSE_US;
                    if error.kind() == io::ErrorKind::UnexpectedEof {
                        self.epoll.remove(sockets.receive);
                        self.handover = None;
                    }
                    return;
                }
            }
        }
    }

    fn adopt_handed_over(&mut self, handed_over: HandedOver) {
        let raw = handed_over.fd.as_raw_fd();
        let (Ok(local), Ok(address)) = (sys::local_address(raw), sys::peer_address(raw)) else {
            return; // the client left while its connection was on its way
        };
        let mut conn =
            Box::new(Conn::new(handed_over.fd, &address, local, &self.shared, self.now_us));
        conn.preload(&handed_over.bytes, &mut self.pool);
        conn.deadline_us = self.now_us
            + if handed_over.bytes.is_empty() {
                self.shared.settings.keep_alive_us.max(self.shared.settings.header_timeout_us)
            } else {
                self.shared.settings.header_timeout_us
            };
        conn.ready_us = handed_over.ready_us;
        conn.answered = 1;
        self.adopt(conn);
    }

    /// Takes passed connections, and up to `most` new ones, although no app thread is free: when requests never stop
    /// waiting, no thread would ever come to look for them. What they bring waits behind the others.
    pub fn take_some(&mut self, most: usize) {
        if matches!(self.drain, Drain::HandingOver { .. } | Drain::Stopping) {
            return;
        }
        let earlier = std::mem::take(&mut self.ready);
        self.take_handed_over();
        if self.drain.accepts() && self.now_us >= self.accept_after_us {
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
}
