//! From the first byte of a request to the end of its head.

use std::io;
use std::os::fd::AsRawFd;

use prefork_core::forwarded::{self, Scheme};
use prefork_core::{BodyDecoder, Parsed, head};

use super::{Conn, Incoming, Next, Stage, State};
use crate::buffer::{BUFFER_BYTES, Buffer, Pool};
use crate::intake::Intake;
use crate::shared::Shared;
use crate::sys;

impl Conn {
    pub(super) fn read_head(&mut self, shared: &Shared, pool: &mut Pool, now_us: u64) -> Next {
        loop {
            let buffer = self.buffer.get_or_insert_with(|| pool.get());
            let room = buffer.room(if buffer.filled == 0 { BUFFER_BYTES } else { 512 });
            let room_len = room.len();
            match sys::receive(self.fd.as_raw_fd(), room) {
                Ok(0) => return self.on_end(shared, pool),
                Ok(count) => {
                    buffer.filled += count;
                    self.received += count as u64;
                    // Edge-triggered: a read that did not fill its room has emptied the socket.
                    self.is_unread = count == room_len;
                    let next = self.advance(shared, pool, now_us);
                    match &self.state {
                        State::Head if next == Next::Wait && self.is_unread => {}
                        State::Head if next == Next::Wait => {
                            // The rest may be held back until this is acknowledged.
                            sys::acknowledge(self.fd.as_raw_fd());
                            return next;
                        }
                        State::Request(_) if next == Next::Wait && self.is_unread => {
                            return self.read_body(shared, pool, now_us);
                        }
                        _ => return next,
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.is_unread = false;
                    return Next::Wait;
                }
                Err(_) => return Next::Close,
            }
        }
    }

    /// Makes what it can of the bytes that are there.
    pub fn advance(&mut self, shared: &Shared, pool: &mut Pool, now_us: u64) -> Next {
        if self.is_at_head() {
            let Some(buffer) = self.buffer.as_mut() else { return Next::Wait };
            if buffer.start == buffer.filled {
                return Next::Wait;
            }
            let Buffer { raw, start, filled, head, .. } = &mut **buffer;
            let is_begun = head.is_begun();
            match head::parse(&raw[*start..*filled], &shared.settings.limits, head) {
                Ok(Parsed::Partial) => {
                    if !is_begun {
                        self.deadline_us = now_us + shared.settings.header_timeout_us;
                    }
                    return Next::Wait;
                }
                Ok(Parsed::Done(length)) => {
                    buffer.head_len = length;
                    buffer.used = buffer.start + length;
                }
                Err(reject) => return self.refuse(reject, shared, pool, now_us),
            }
            let mut scheme = Scheme::Http;
            if self.peer.is_trusted {
                match forwarded::scheme(&buffer.head, &buffer.raw[buffer.start..]) {
                    Ok(said) => scheme = said,
                    Err(reject) => return self.refuse(reject, shared, pool, now_us),
                }
            }
            match BodyDecoder::new(buffer.head.framing, &shared.settings.limits) {
                Ok(decoder) => {
                    let intake = Intake::default();
                    let stage = Stage::Body;
                    self.state = State::Request(Incoming { stage, scheme, decoder, intake });
                }
                Err(reject) => return self.refuse(reject, shared, pool, now_us),
            }
            return match self.decode() {
                Ok(()) if self.is_body_received() => self.call(now_us),
                Ok(()) => self.begin_body(shared, pool, now_us),
                Err(reject) => self.refuse(reject, shared, pool, now_us),
            };
        }
        Next::Wait
    }
}
