//! The reactor's table of connections: each has a slot, whose number and generation are its token in epoll.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::Reactor;
use super::drain::LAST_REQUEST_US;
use super::order::Order;
use crate::conn::{Conn, Next};
use crate::stats::cell;
use crate::sys;

#[derive(Default)]
#[allow(clippy::struct_excessive_bools)] // what the kernel has reported, none of them a state
pub(super) struct Slot {
    pub(super) generation: u32,
    /// `None` while it is in a call, or free.
    pub(super) conn: Option<Box<Conn>>,
    is_open: bool,
    /// The socket became readable and nobody has read it since.
    pub(super) is_unread: bool,
    /// The client ended its side: a read that did not fill its room is not the last, its end is still to be read.
    /// Shared with the connection, whose call is to know of it.
    pub(super) is_ended: Arc<AtomicBool>,
    /// Room to send is reported.
    pub(super) is_write_armed: bool,
}

impl Reactor {
    /// Gives a new connection its slot and looks at once whether its request is there.
    pub(super) fn adopt(&mut self, mut conn: Box<Conn>) {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        });
        let slot = &mut self.slots[index as usize];
        conn.token = u64::from(slot.generation) << 32 | u64::from(index);
        slot.is_open = true;
        slot.is_unread = true;
        slot.is_ended = Arc::clone(&conn.client_ended);
        self.open += 1;
        self.shared.table.add(cell::connections, 1);
        let added = self.epoll.add(conn.raw_fd(), sys::READ | sys::EDGE, conn.token);
        let next = if added.is_ok() { Next::Wait } else { Next::Close };
        self.guarded(index, conn, |_, _, _, _| next);
    }

    pub(super) fn put_back(&mut self, index: u32, mut conn: Box<Conn>) {
        let slot = &mut self.slots[index as usize];
        if conn.is_answering() && !slot.is_write_armed {
            slot.is_write_armed = true;
            let flags = sys::READ | sys::WRITE | sys::EDGE;
            if self.epoll.modify(conn.raw_fd(), flags, conn.token).is_err() {
                self.close(index, conn);
                return;
            }
        }
        conn.release_if_idle(&mut self.pool);
        if self.drain.order() == Order::Close && conn.is_idle() {
            conn.deadline_us = conn.deadline_us.min(self.now_us + LAST_REQUEST_US);
        }
        self.next_deadline_us = self.next_deadline_us.min(conn.deadline_us);
        self.slots[index as usize].conn = Some(conn);
    }

    pub(super) fn close(&mut self, index: u32, mut conn: Box<Conn>) {
        conn.release(&mut self.pool);
        // The description may live on in another process; without this its events would go on coming here.
        self.epoll.remove(conn.raw_fd());
        sys::shut_down(conn.raw_fd());
        drop(conn);
        self.forget(index);
    }

    pub(super) fn close_where(&mut self, is_meant: impl Fn(&Conn) -> bool) {
        for index in 0..self.slots.len() {
            let slot = &mut self.slots[index];
            if slot.conn.as_deref().is_some_and(&is_meant)
                && let Some(conn) = slot.conn.take()
            {
                self.close(u32::try_from(index).unwrap_or(u32::MAX), conn);
            }
        }
    }

    pub(super) fn forget(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        slot.generation = slot.generation.wrapping_add(1) & 0x7fff_ffff;
        slot.conn = None;
        slot.is_open = false;
        slot.is_unread = false;
        slot.is_write_armed = false;
        self.free.push(index);
        self.open -= 1;
        self.shared.table.sub(cell::connections, 1);
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
}
