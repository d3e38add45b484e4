//! A body on its way in: read before its call, or, when it is streamed, by the call.

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use prefork_core::{Framing, Head, Reject, response};

use super::{Conn, Next, Stage};
use crate::accounting;
use crate::buffer::{Buffer, Pool};
use crate::intake::{MEMORY_BYTES_MAX, Room};
use crate::pace::Patience;
use crate::shared::Shared;
use crate::spool::{Spool, SpoolFile};
use crate::sys;

/// A body up to this size is read before its call starts also where the app reads bodies while they come.
const SMALL_BODY_BYTES: u64 = 64 * 1024;

/// Read this much of a body at once.
const BODY_READ_BYTES: usize = 64 * 1024;

/// Read so much of one body before the other connections have their turn.
const BODY_TURN_BYTES: usize = 512 * 1024;

/// A body that waits for room asks again so often.
const ROOM_RETRY_US: u64 = 50_000;

impl Conn {
    /// The head is here and its body is not: from now on the client is waited for, unless the app is to do that.
    pub(super) fn begin_body(&mut self, shared: &Shared, pool: &mut Pool, now_us: u64) -> Next {
        if let Some(incoming) = self.state.incoming_mut() {
            incoming.intake.start(now_us);
        }
        let Head { framing, expects_continue, .. } = self.request().head;
        let streamed_from = match &shared.body_spool {
            _ if shared.settings.is_streaming && expects_continue => 0,
            _ if shared.settings.is_streaming => SMALL_BODY_BYTES,
            Some(_) => u64::MAX,
            None => MEMORY_BYTES_MAX as u64,
        };
        let is_streamed = match framing {
            Framing::Length(length) => length > streamed_from,
            _ => shared.settings.is_streaming,
        };
        if is_streamed {
            return self.call(now_us);
        }
        let spooled_max = shared.body_spool.as_ref().map_or(u64::MAX, Spool::bytes);
        if matches!(framing, Framing::Length(length) if length > spooled_max) {
            return self.refuse_above_spool(shared, pool, now_us);
        }
        // Not by the app's first read, as PEP 3333 would also have it: threads are too scarce to wait there.
        if expects_continue && self.has_no_body_yet() && !self.send_continue() {
            return Next::Close;
        }
        self.renew_body_deadline(shared);
        if !self.is_unread {
            sys::acknowledge(self.raw_fd());
        }
        Next::Wait
    }

    fn renew_body_deadline(&mut self, shared: &Shared) {
        if let Some(incoming) = self.state.incoming() {
            self.deadline_us = incoming.intake.deadline_us(shared.settings.body_patience);
        }
    }

    fn has_no_body_yet(&self) -> bool {
        let request = self.request();
        request.body().is_empty() && request.used == request.filled
    }

    /// Tells the client to go on. False when only part of that could be sent, after which nothing can be.
    #[must_use]
    pub fn send_continue(&self) -> bool {
        match sys::send(self.raw_fd(), response::CONTINUE) {
            Ok(sent) => sent == response::CONTINUE.len(),
            // Without it the client goes on after a moment of its own (RFC 9110 §10.1.1).
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        }
    }

    /// Takes in what has come of a body, as far as there is room and others do not wait too long.
    pub(super) fn read_body(&mut self, shared: &Shared, pool: &mut Pool, now_us: u64) -> Next {
        let mut left = BODY_TURN_BYTES;
        loop {
            let want = self.body_read_bytes();
            if let Some(next) = self.make_room(want, shared, pool, now_us) {
                return next;
            }
            match sys::receive(self.fd.as_raw_fd(), pool.scratch(want)) {
                Ok(0) => return self.on_end(shared, pool),
                Ok(count) => {
                    self.is_unread = count == want;
                    if let Some(next) = self.take_in(count, shared, pool, now_us) {
                        return next;
                    }
                    left = left.saturating_sub(count);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.is_unread = false,
                Err(_) => return Next::Close,
            }
            if !self.is_unread || left == 0 {
                self.renew_body_deadline(shared);
                if self.is_unread {
                    return Next::Yield;
                }
                sys::acknowledge(self.raw_fd());
                return Next::Wait;
            }
        }
    }

    /// How much of the body to read at once: never more than belongs to it, as far as that is known.
    fn body_read_bytes(&self) -> usize {
        match self.request().head.framing {
            Framing::Length(_) => self.expected_bytes().min(BODY_READ_BYTES),
            _ => BODY_READ_BYTES,
        }
    }

    fn expected_bytes(&self) -> usize {
        let expected = self.state.incoming().map_or(0, |incoming| incoming.decoder.expected());
        usize::try_from(expected).unwrap_or(usize::MAX)
    }

    /// Sees to it that `count` more bytes of the body can be kept; what follows when they cannot.
    fn make_room(
        &mut self,
        count: usize,
        shared: &Shared,
        pool: &mut Pool,
        now_us: u64,
    ) -> Option<Next> {
        let (Some(buffer), Some(incoming)) = (self.buffer.as_mut(), self.state.incoming_mut())
        else {
            return Some(Next::Close);
        };
        let total = match buffer.head.framing {
            Framing::Length(length) => Some(length),
            _ => None,
        };
        let spool = shared.body_spool.as_ref();
        match incoming.intake.make_room(&mut buffer.body, count, total, &shared.memory, spool) {
            Room::Here => None,
            Room::NoSpool => Some(self.call(now_us)),
            Room::Never => Some(self.refuse_above_spool(shared, pool, now_us)),
            Room::Broken(error) => Some(self.refuse_for_room(&error, shared, pool, now_us)),
            Room::Full => {
                if incoming.stage == Stage::Body {
                    incoming.stage = Stage::Full { since_us: now_us };
                }
                // What is unread now is read when there is room; no edge will tell.
                self.is_unread = true;
                shared.press();
                self.deadline_us = now_us + ROOM_RETRY_US;
                Some(Next::Wait)
            }
        }
    }

    /// Asks again for room; a body that gets none for as long as a client may pause is given up.
    pub(super) fn retry_room(
        &mut self,
        since_us: u64,
        shared: &Shared,
        pool: &mut Pool,
        now_us: u64,
    ) -> Next {
        if let Some(next) = self.make_room(self.body_read_bytes(), shared, pool, now_us) {
            let is_full = matches!(self.state.stage(), Some(Stage::Full { .. }));
            let waited_us = now_us.saturating_sub(since_us);
            if is_full && waited_us >= shared.settings.body_patience.pause_us {
                let error = io::Error::new(io::ErrorKind::StorageFull, "--spool-size is used up");
                return self.refuse_for_room(&error, shared, pool, now_us);
            }
            return next;
        }
        if let Some(incoming) = self.state.incoming_mut() {
            incoming.stage = Stage::Body;
            incoming.intake.resume(now_us);
        }
        self.renew_body_deadline(shared);
        Next::Wait
    }

    /// Decodes the first `count` bytes of the pool's scratch; what follows when that ends the wait for the body.
    fn take_in(
        &mut self,
        count: usize,
        shared: &Shared,
        pool: &mut Pool,
        now_us: u64,
    ) -> Option<Next> {
        self.count_body(count, now_us);
        let (buffer, incoming) = (self.buffer.as_mut()?, self.state.incoming_mut()?);
        let input = &*pool.scratch(count);
        let mut at = 0;
        while at < count && !incoming.decoder.is_done() {
            let step = match incoming.decoder.decode(&input[at..]) {
                Ok(step) => step,
                Err(reject) => return Some(self.refuse(reject, shared, pool, now_us)),
            };
            if let Err(error) = incoming.intake.store(&input[at..][step.data], &mut buffer.body) {
                return Some(self.refuse_for_room(&error, shared, pool, now_us));
            }
            at += step.consumed;
        }
        if at < count {
            // Of the next request, which follows a chunked body without a gap.
            buffer.append(&input[at..]);
            buffer.used = buffer.filled - (count - at);
        }
        incoming.decoder.is_done().then(|| self.call(now_us))
    }

    fn count_body(&mut self, count: usize, now_us: u64) {
        self.received += count as u64;
        if let Some(incoming) = self.state.incoming_mut() {
            incoming.intake.moved(count, now_us);
        }
    }

    /// Decodes the received bytes of the body.
    pub(super) fn decode(&mut self) -> Result<(), Reject> {
        let (Some(buffer), Some(incoming)) = (self.buffer.as_mut(), self.state.incoming_mut())
        else {
            return Ok(());
        };
        if !incoming.decoder.is_done() && buffer.used < buffer.filled {
            let Buffer { raw, used, filled, body, .. } = &mut **buffer;
            *used += incoming.decoder.decode_into(&raw[*used..*filled], body)?;
            if buffer.used == buffer.filled {
                // All that came is decoded: the next read goes behind the head again.
                buffer.filled = buffer.start + buffer.head_len;
                buffer.used = buffer.filled;
            }
        }
        Ok(())
    }

    /// The whole body has been received and decoded.
    #[must_use]
    pub fn is_body_received(&self) -> bool {
        self.state.incoming().is_none_or(|incoming| incoming.decoder.is_done())
    }

    /// The file that has the body, for whoever reads it.
    #[must_use]
    pub fn take_body_file(&mut self) -> Option<SpoolFile> {
        self.state.incoming_mut()?.intake.take_file()
    }

    /// The call waits for its client again; returns when that is too slow.
    pub fn resume_body(&mut self, patience: Patience, now_us: u64) -> u64 {
        let Some(incoming) = self.state.incoming_mut() else { return now_us };
        incoming.intake.resume(now_us);
        incoming.intake.deadline_us(patience)
    }

    /// Receives more of a streamed body, into `direct` when there is nothing to decode, else into the buffer.
    /// Returns how many bytes went to `direct`.
    ///
    /// # Errors
    /// `WouldBlock`; `UnexpectedEof` when the client ended early; `InvalidData` with the [`Reject`] inside.
    pub fn receive_body(&mut self, direct: &mut [u8], now_us: u64) -> io::Result<usize> {
        let fd = self.fd.as_raw_fd();
        let is_plain = matches!(self.request().head.framing, Framing::Length(_));
        let expected = self.expected_bytes();
        let wanted = expected.min(direct.len());
        if is_plain && wanted > 0 {
            let count = receive_or_acknowledge(fd, &mut direct[..wanted])?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.count_body(count, now_us);
            if let Some(incoming) = self.state.incoming_mut() {
                incoming.decoder.decode(&direct[..count]).map_err(invalid)?;
            }
            return Ok(count);
        }
        let want = if is_plain { expected.min(BODY_READ_BYTES) } else { BODY_READ_BYTES };
        let buffer = self.request_mut();
        let room = buffer.room(want);
        let room_len = if is_plain { want } else { room.len() };
        let count = receive_or_acknowledge(fd, &mut room[..room_len])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        buffer.filled += count;
        self.count_body(count, now_us);
        self.decode().map_err(invalid)?;
        Ok(0)
    }

    /// The body cannot be kept, which is not the client's fault.
    fn refuse_for_room(
        &mut self,
        error: &io::Error,
        shared: &Shared,
        pool: &mut Pool,
        now_us: u64,
    ) -> Next {
        shared.note_spool_failure(error);
        accounting::note_refusal(shared, &self.received_request(), 503, "no_room_for_body");
        self.answer_and_close(503, "no room for the request body now", shared, pool, now_us)
    }

    /// The body could wait for room forever.
    fn refuse_above_spool(&mut self, shared: &Shared, pool: &mut Pool, now_us: u64) -> Next {
        accounting::note_refusal(shared, &self.received_request(), 413, "body_above_spool_size");
        let why = "the body is larger than what the server keeps of one (--spool-size)";
        self.answer_and_close(413, why, shared, pool, now_us)
    }
}

/// Receives; before a wait for more, what has come is acknowledged.
fn receive_or_acknowledge(fd: RawFd, into: &mut [u8]) -> io::Result<usize> {
    let result = sys::receive(fd, into);
    if matches!(&result, Err(error) if error.kind() == io::ErrorKind::WouldBlock) {
        sys::acknowledge(fd);
    }
    result
}

fn invalid(reject: Reject) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reject)
}
