//! One connection: its buffer, where it is in the life of a request, what is still to be sent.
//!
//! A connection has one owner at a time: the reactor while it waits for the client, an app thread while a call
//! runs. So nothing here locks, and nothing here knows epoll, threads or Python.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use prefork_core::forwarded::{self, Scheme};
use prefork_core::{BodyDecoder, Framing, Head, Method, Parsed, Reject, head, response};

use crate::accounting::{self, Received};
use crate::buffer::{BUFFER_BYTES, Buffer, Pool};
use crate::intake::{Intake, MEMORY_BYTES_MAX, Room};
use crate::shared::Shared;
use crate::spool::Spool;
use crate::sys::{self, Address};
use crate::unsent::{Flushed, Unsent};

/// A body up to this size is read before its call starts also where the app reads bodies while they come.
pub const SMALL_BODY_BYTES: u64 = 64 * 1024;

/// Read this much of a body at once.
const BODY_READ_BYTES: usize = 64 * 1024;

/// Read so much of one body before the other connections have their turn.
const BODY_TURN_BYTES: usize = 512 * 1024;

/// A body that waits for room asks again so often.
const ROOM_RETRY_US: u64 = 50_000;
/// How long a client may go on sending what nobody reads before the connection is cut.
const LINGER_US: u64 = 2_000_000;

/// Where a connection is while the reactor has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Between requests, or in the middle of a head.
    Head,
    /// In the middle of a body that is read before its call.
    Body,
    /// In the middle of a body for which there is no room now; the client's bytes wait in its socket.
    Full,
    /// A call runs, or waits to.
    Call,
    /// The rest of an answer is being sent; what follows depends on `closes`.
    Write,
    /// Our side is shut; the client's bytes are thrown away until it ends its side, so that the answer is not
    /// destroyed by a reset (RFC 9112 §9.6).
    Linger,
}

impl Phase {
    /// Whether bytes from the client are of use now.
    #[must_use]
    pub const fn reads(self) -> bool {
        matches!(self, Self::Head | Self::Body | Self::Linger)
    }
}

/// What the owner of a connection has to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Wait for the client.
    Wait,
    /// More can be read or sent, but others come first.
    Yield,
    /// A request is complete enough for its call.
    Call,
    /// Close it.
    Close,
}

/// The client's side of a connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The address as text; empty for a unix socket.
    pub host: String,
    /// 0 for a unix socket.
    pub port: u16,
    /// What it says about the scheme is believed.
    pub is_trusted: bool,
}

/// One connection.
#[allow(clippy::struct_excessive_bools)] // independent facts, none of them a state
pub struct Conn {
    fd: OwnedFd,
    /// Its name in the reactor.
    pub token: u64,
    /// Who is at the other end.
    pub peer: Peer,
    /// The address it came to: `SERVER_NAME` and `SERVER_PORT`.
    pub local: Address,
    buffer: Option<Box<Buffer>>,
    /// Where it is.
    pub phase: Phase,
    /// When the current wait is over, on the monotonic clock.
    pub deadline_us: u64,
    decoder: BodyDecoder,
    /// What is kept of the body, besides what the buffer holds.
    pub intake: Intake,
    /// The scheme of the current request.
    pub scheme: Scheme,
    /// Rest of the answer.
    pub unsent: Unsent,
    /// It ends after the current answer.
    pub closes: bool,
    /// It must linger when it ends: the client may still be sending.
    pub lingers: bool,
    /// Answers so far; a passed connection had at least one.
    pub answered: u32,
    /// Passing it to another worker failed once: the next answer ends it.
    pub is_stuck_here: bool,
    /// When the current request was complete enough to be called.
    pub ready_us: u64,
    /// Bytes of the current request received.
    pub received: u64,
    /// When another worker found the request complete that was passed with it; 0 for none.
    pub passed_ready_us: u64,
    /// The last read filled its room: there may be more, of which no edge will tell.
    pub has_more: bool,
    /// The reactor is told when there is room to send.
    pub is_write_armed: bool,
}

impl Conn {
    /// A new connection that waits for its first request.
    #[must_use]
    pub fn new(
        fd: OwnedFd,
        address: &Address,
        local: Address,
        context: &Shared,
        now_us: u64,
    ) -> Self {
        let peer = match address {
            Address::Ip(ip, port) => {
                Peer { host: ip.to_string(), port: *port, is_trusted: context.trusts(Some(*ip)) }
            }
            Address::Unix => {
                Peer { host: String::new(), port: 0, is_trusted: context.trusts(None) }
            }
        };
        Self {
            fd,
            token: 0,
            peer,
            local,
            buffer: None,
            phase: Phase::Head,
            deadline_us: now_us + context.settings.header_timeout_us,
            decoder: done_body(),
            intake: Intake::default(),
            scheme: Scheme::Http,
            unsent: Unsent::default(),
            closes: false,
            lingers: false,
            answered: 0,
            is_stuck_here: false,
            ready_us: 0,
            received: 0,
            passed_ready_us: 0,
            has_more: false,
            is_write_armed: false,
        }
    }

    /// The socket, to wait on or send to.
    #[must_use]
    pub fn raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// The socket, to pass on.
    #[must_use]
    pub fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// The current request.
    ///
    /// # Panics
    /// Between requests, when there is none: a bug of the caller.
    #[must_use]
    #[allow(clippy::expect_used)]
    pub fn request(&self) -> &Buffer {
        self.buffer.as_ref().expect("a call has a request")
    }

    /// The current request.
    ///
    /// # Panics
    /// As [`Conn::request`].
    #[must_use]
    #[allow(clippy::expect_used)]
    pub fn request_mut(&mut self) -> &mut Buffer {
        self.buffer.as_mut().expect("a call has a request")
    }

    /// The head of the current request, perhaps half read.
    #[must_use]
    pub fn head(&self) -> Option<&Head> {
        self.buffer.as_ref().map(|buffer| &buffer.head)
    }

    /// Bytes received of a request whose head is not complete; what must go along when the connection is passed.
    #[must_use]
    pub fn partial(&self) -> &[u8] {
        self.buffer.as_ref().map_or(&[], |b| b.received())
    }

    /// The current request, as it is counted and logged.
    #[must_use]
    pub fn received_request(&self) -> Received<'_> {
        Received {
            remote: &self.peer.host,
            head: self.head(),
            bytes: self.partial(),
            size: self.received,
            ready_us: self.ready_us,
        }
    }

    /// Between requests, nothing received.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.phase == Phase::Head && self.partial().is_empty()
    }

    /// Bytes of a next request have been received, and nobody has looked at them.
    #[must_use]
    pub fn has_leftover(&self) -> bool {
        self.phase == Phase::Head
            && self.buffer.as_ref().is_some_and(|b| b.start < b.filled && !b.head.is_begun())
    }

    /// All received bytes from the beginning of a request that no app has seen, as they came; `None` when they cannot
    /// be had any more: the chunks of a body are gone once it is decoded.
    #[must_use]
    pub fn wire(&self) -> Option<Vec<u8>> {
        let buffer = self.buffer.as_ref()?;
        if buffer.head.framing == Framing::Chunked || self.intake.is_spooled() {
            return None;
        }
        let after = &buffer.raw[buffer.used..buffer.filled];
        Some([buffer.head_bytes(), buffer.body(), after].concat())
    }

    /// Gives the buffer back when it holds nothing.
    pub fn release_if_idle(&mut self, pool: &mut Pool) {
        if self.is_idle() {
            self.release(pool);
        }
    }

    /// Takes bytes another worker had received on this connection.
    pub fn preload(&mut self, bytes: &[u8], pool: &mut Pool) {
        if !bytes.is_empty() {
            self.buffer.get_or_insert_with(|| pool.get()).append(bytes);
        }
    }

    /// Gives the buffer back; to be called before the connection is dropped or passed.
    pub fn release(&mut self, pool: &mut Pool) {
        if let Some(buffer) = self.buffer.take() {
            pool.put(buffer);
        }
    }

    /// The client sent something, or ended: reads until a request is complete or nothing is left.
    pub fn on_readable(&mut self, context: &Shared, pool: &mut Pool, now_us: u64) -> Next {
        match self.phase {
            Phase::Head => self.read_head(context, pool, now_us),
            Phase::Body => self.read_body(context, pool, now_us),
            Phase::Linger => self.discard(),
            // A client that sends the next request before it took the answer waits for it.
            Phase::Full | Phase::Write | Phase::Call => Next::Wait,
        }
    }

    fn read_head(&mut self, context: &Shared, pool: &mut Pool, now_us: u64) -> Next {
        loop {
            let buffer = self.buffer.get_or_insert_with(|| pool.get());
            let room = buffer.room(if buffer.filled == 0 { BUFFER_BYTES } else { 512 });
            let room_len = room.len();
            match sys::receive(self.fd.as_raw_fd(), room) {
                Ok(0) => return self.on_end(context, pool),
                Ok(count) => {
                    buffer.filled += count;
                    self.received += count as u64;
                    // Edge-triggered: a read that did not fill its room has emptied the socket.
                    self.has_more = count == room_len;
                    let next = self.advance(context, pool, now_us);
                    match self.phase {
                        Phase::Head if next == Next::Wait && self.has_more => {}
                        Phase::Body if next == Next::Wait && self.has_more => {
                            return self.read_body(context, pool, now_us);
                        }
                        _ => return next,
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.has_more = false;
                    return Next::Wait;
                }
                Err(_) => return Next::Close,
            }
        }
    }

    /// Takes in what has come of a body, as far as there is room and others do not wait too long.
    fn read_body(&mut self, context: &Shared, pool: &mut Pool, now_us: u64) -> Next {
        let mut left = BODY_TURN_BYTES;
        loop {
            let want = self.body_read_bytes();
            if let Some(next) = self.make_room(want, context, pool, now_us) {
                return next;
            }
            match sys::receive(self.fd.as_raw_fd(), pool.scratch(want)) {
                Ok(0) => return self.on_end(context, pool),
                Ok(count) => {
                    self.has_more = count == want;
                    if let Some(next) = self.take_in(count, context, pool, now_us) {
                        return next;
                    }
                    left = left.saturating_sub(count);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.has_more = false,
                Err(_) => return Next::Close,
            }
            if !self.has_more || left == 0 {
                self.deadline_us = self.intake.deadline_us(context.settings.body_patience);
                return if self.has_more { Next::Yield } else { Next::Wait };
            }
        }
    }

    /// Sees to it that `count` more bytes of the body can be kept; what follows when they cannot.
    fn make_room(
        &mut self,
        count: usize,
        context: &Shared,
        pool: &mut Pool,
        now_us: u64,
    ) -> Option<Next> {
        let Some(buffer) = self.buffer.as_mut() else { return Some(Next::Close) };
        let total = match buffer.head.framing {
            Framing::Length(length) => Some(length),
            _ => None,
        };
        let spool = context.body_spool.as_ref();
        match self.intake.make_room(&mut buffer.body, count, total, &context.memory, spool) {
            Room::Here => None,
            Room::NoSpool => Some(self.call(now_us)),
            Room::Never => Some(self.refuse_above_spool(context, pool, now_us)),
            Room::Broken(error) => Some(self.refuse_for_room(&error, context, pool, now_us)),
            Room::Full => {
                self.phase = Phase::Full;
                // What is unread now is read when there is room; no edge will tell.
                self.has_more = true;
                self.intake.wait_for_room(now_us);
                context.press();
                self.deadline_us = now_us + ROOM_RETRY_US;
                Some(Next::Wait)
            }
        }
    }

    /// Asks again for room; a body that gets none for as long as a client may pause is given up.
    fn retry_room(&mut self, context: &Shared, pool: &mut Pool, now_us: u64) -> Next {
        self.phase = Phase::Body;
        let next = self.make_room(self.body_read_bytes(), context, pool, now_us);
        if self.phase == Phase::Full
            && self.intake.room_wait_us(now_us) >= context.settings.body_patience.pause_us
        {
            let error = io::Error::new(io::ErrorKind::StorageFull, "--spool-size is used up");
            return self.refuse_for_room(&error, context, pool, now_us);
        }
        next.unwrap_or_else(|| {
            self.intake.resume(now_us);
            self.deadline_us = self.intake.deadline_us(context.settings.body_patience);
            Next::Wait
        })
    }

    /// How much of the body to read at once: never more than belongs to it, as far as that is known.
    fn body_read_bytes(&self) -> usize {
        match self.request().head.framing {
            Framing::Length(_) => usize::try_from(self.decoder.expected())
                .map_or(BODY_READ_BYTES, |expected| expected.min(BODY_READ_BYTES)),
            _ => BODY_READ_BYTES,
        }
    }

    /// The body cannot be kept, which is not the client's fault.
    fn refuse_for_room(
        &mut self,
        error: &io::Error,
        context: &Shared,
        pool: &mut Pool,
        now_us: u64,
    ) -> Next {
        context.note_spool_failure(error);
        accounting::note_refusal(context, &self.received_request(), 503, "no_room_for_body");
        self.answer_and_close(503, "no room for the request body now", context, pool, now_us)
    }

    /// The body could wait for room forever.
    fn refuse_above_spool(&mut self, context: &Shared, pool: &mut Pool, now_us: u64) -> Next {
        accounting::note_refusal(context, &self.received_request(), 413, "body_above_spool_size");
        let why = "the body is larger than what the server keeps of one (--spool-size)";
        self.answer_and_close(413, why, context, pool, now_us)
    }

    /// Decodes the first `count` bytes of the pool's scratch; what follows when that ends the wait for the body.
    fn take_in(
        &mut self,
        count: usize,
        context: &Shared,
        pool: &mut Pool,
        now_us: u64,
    ) -> Option<Next> {
        self.received += count as u64;
        self.intake.moved(count, now_us);
        let buffer = self.buffer.as_mut()?;
        let input = &*pool.scratch(count);
        let mut at = 0;
        while at < count && !self.decoder.is_done() {
            let step = match self.decoder.decode(&input[at..]) {
                Ok(step) => step,
                Err(reject) => return Some(self.refuse(reject, context, pool, now_us)),
            };
            if let Err(error) = self.intake.store(&input[at..][step.data], &mut buffer.body) {
                return Some(self.refuse_for_room(&error, context, pool, now_us));
            }
            at += step.consumed;
        }
        if at < count {
            // Of the next request, which follows a chunked body without a gap.
            buffer.append(&input[at..]);
            buffer.used = buffer.filled - (count - at);
        }
        self.decoder.is_done().then(|| self.call(now_us))
    }

    /// All is here that the call waits for.
    fn call(&mut self, now_us: u64) -> Next {
        self.phase = Phase::Call;
        self.ready_us = match std::mem::take(&mut self.passed_ready_us) {
            0 => now_us,
            passed_us => passed_us,
        };
        Next::Call
    }

    /// The client ended its side before a request was complete.
    fn on_end(&mut self, context: &Shared, pool: &mut Pool) -> Next {
        if self.phase != Phase::Head || !self.partial().is_empty() {
            context.count_disconnect();
        }
        self.release(pool);
        Next::Close
    }

    /// Makes what it can of the bytes that are there.
    pub fn advance(&mut self, context: &Shared, pool: &mut Pool, now_us: u64) -> Next {
        if self.phase == Phase::Head {
            let Some(buffer) = self.buffer.as_mut() else { return Next::Wait };
            if buffer.start == buffer.filled {
                return Next::Wait;
            }
            let Buffer { raw, start, filled, head, .. } = &mut **buffer;
            let is_begun = head.is_begun();
            match head::parse(&raw[*start..*filled], &context.settings.limits, head) {
                Ok(Parsed::Partial) => {
                    if !is_begun {
                        self.deadline_us = now_us + context.settings.header_timeout_us;
                    }
                    return Next::Wait;
                }
                Ok(Parsed::Done(length)) => {
                    buffer.head_len = length;
                    buffer.used = buffer.start + length;
                }
                Err(reject) => return self.refuse(reject, context, pool, now_us),
            }
            if self.peer.is_trusted {
                match forwarded::scheme(&buffer.head, &buffer.raw[buffer.start..]) {
                    Ok(scheme) => self.scheme = scheme,
                    Err(reject) => return self.refuse(reject, context, pool, now_us),
                }
            }
            match BodyDecoder::new(buffer.head.framing, &context.settings.limits) {
                Ok(decoder) => self.decoder = decoder,
                Err(reject) => return self.refuse(reject, context, pool, now_us),
            }
            self.phase = Phase::Body;
            return match self.decode() {
                Ok(()) if self.decoder.is_done() => self.call(now_us),
                Ok(()) => self.begin_body(context, pool, now_us),
                Err(reject) => self.refuse(reject, context, pool, now_us),
            };
        }
        Next::Wait
    }

    /// The head is here and its body is not: from now on the client is waited for, unless the app is to do that.
    fn begin_body(&mut self, context: &Shared, pool: &mut Pool, now_us: u64) -> Next {
        self.intake.start(now_us);
        let Head { framing, expects_continue, .. } = self.request().head;
        let streamed_from = match &context.body_spool {
            _ if context.settings.is_streaming && expects_continue => 0,
            _ if context.settings.is_streaming => SMALL_BODY_BYTES,
            Some(_) => u64::MAX,
            None => MEMORY_BYTES_MAX as u64,
        };
        let is_streamed = match framing {
            Framing::Length(length) => length > streamed_from,
            _ => context.settings.is_streaming,
        };
        if is_streamed {
            return self.call(now_us);
        }
        let spooled_max = context.body_spool.as_ref().map_or(u64::MAX, Spool::bytes);
        if matches!(framing, Framing::Length(length) if length > spooled_max) {
            return self.refuse_above_spool(context, pool, now_us);
        }
        // Not by the app's first read, as PEP 3333 would also have it: threads are too scarce to wait there.
        if expects_continue && self.has_no_body_yet() && !self.send_continue() {
            return Next::Close;
        }
        self.deadline_us = self.intake.deadline_us(context.settings.body_patience);
        Next::Wait
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

    /// Decodes the received bytes of the body.
    fn decode(&mut self) -> Result<(), Reject> {
        let Some(buffer) = self.buffer.as_mut() else { return Ok(()) };
        if !self.decoder.is_done() && buffer.used < buffer.filled {
            let Buffer { raw, used, filled, body, .. } = &mut **buffer;
            *used += self.decoder.decode_into(&raw[*used..*filled], body)?;
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
        self.decoder.is_done()
    }

    /// Receives more of a streamed body, into `direct` when there is nothing to decode, else into the buffer.
    /// Returns how many bytes went to `direct`.
    ///
    /// # Errors
    /// `WouldBlock`; `UnexpectedEof` when the client ended early; `InvalidData` with the [`Reject`] inside.
    pub fn receive_body(&mut self, direct: &mut [u8], now_us: u64) -> io::Result<usize> {
        let fd = self.fd.as_raw_fd();
        let is_plain = matches!(self.request().head.framing, Framing::Length(_));
        let expected = usize::try_from(self.decoder.expected()).unwrap_or(usize::MAX);
        let wanted = expected.min(direct.len());
        if is_plain && wanted > 0 {
            let count = sys::receive(fd, &mut direct[..wanted])?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.received += count as u64;
            self.intake.moved(count, now_us);
            self.decoder.decode(&direct[..count]).map_err(invalid)?;
            return Ok(count);
        }
        let want = if is_plain { expected.min(BODY_READ_BYTES) } else { BODY_READ_BYTES };
        let buffer = self.request_mut();
        let room = buffer.room(want);
        let room_len = if is_plain { want } else { room.len() };
        let count = sys::receive(fd, &mut room[..room_len])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        buffer.filled += count;
        self.received += count as u64;
        self.intake.moved(count, now_us);
        self.decode().map_err(invalid)?;
        Ok(0)
    }

    /// Answers a refused request by itself and gives the connection up.
    pub fn refuse(
        &mut self,
        reject: Reject,
        context: &Shared,
        pool: &mut Pool,
        now_us: u64,
    ) -> Next {
        accounting::note_refusal(context, &self.received_request(), reject.status(), reject.code());
        self.answer_and_close(reject.status(), reject.message(), context, pool, now_us)
    }

    /// So much of the current wait was not the client's.
    pub fn excuse(&mut self, time_us: u64) {
        self.deadline_us += time_us;
        self.intake.excuse(time_us);
        self.unsent.excuse(time_us);
    }

    /// The client holds room that others wait for, and has not moved for longer than they should.
    #[must_use]
    pub fn is_in_the_way(&mut self, context: &Shared, now_us: u64) -> bool {
        let settings = &context.settings;
        let deadline_us = match self.phase {
            Phase::Body if self.intake.holds_room() => {
                self.intake.deadline_us(settings.body_patience.under_pressure())
            }
            Phase::Write if self.unsent.holds_room() => {
                let patience = settings.response_patience.under_pressure();
                self.unsent.deadline_us(self.fd.as_raw_fd(), patience, now_us)
            }
            _ => return false,
        };
        deadline_us <= now_us
    }

    /// The client is given up: answers 408 while its body was coming, closes when it did not read.
    pub fn give_up(&mut self, context: &Shared, pool: &mut Pool, now_us: u64) -> Next {
        if self.phase != Phase::Write {
            return self.on_deadline(context, pool, now_us);
        }
        context.count_disconnect();
        Next::Close
    }

    /// A wait is over: answers 408 when a request had begun.
    pub fn on_deadline(&mut self, context: &Shared, pool: &mut Pool, now_us: u64) -> Next {
        match self.phase {
            Phase::Head if self.partial().is_empty() => Next::Close,
            Phase::Full => self.retry_room(context, pool, now_us),
            Phase::Head | Phase::Body => {
                accounting::note_refusal(context, &self.received_request(), 408, "request_timeout");
                self.answer_and_close(408, "the request took too long", context, pool, now_us)
            }
            Phase::Write => {
                self.deadline_us = self.unsent.deadline_us(
                    self.fd.as_raw_fd(),
                    context.settings.response_patience,
                    now_us,
                );
                if self.deadline_us > now_us {
                    return Next::Wait; // the kernel had more of it than the client, and the client is taking that
                }
                self.give_up(context, pool, now_us)
            }
            Phase::Linger => Next::Close,
            Phase::Call => Next::Wait,
        }
    }

    fn answer_and_close(
        &mut self,
        status: u16,
        why: &str,
        context: &Shared,
        pool: &mut Pool,
        now_us: u64,
    ) -> Next {
        let is_head = self.head().is_some_and(|head| head.method == Method::Head);
        self.unsent.push(&context.plain_answer(status, why, is_head));
        self.closes = true;
        self.lingers = true;
        self.release(pool);
        self.phase = Phase::Write;
        self.on_writable(context, now_us)
    }

    /// There may be room to send: goes on with the answer, then with what comes after it.
    pub fn on_writable(&mut self, context: &Shared, now_us: u64) -> Next {
        if self.phase != Phase::Write {
            return Next::Wait;
        }
        let mut sent = 0;
        let flushed = self.unsent.flush(self.fd.as_raw_fd(), &mut sent);
        context.count_sent(sent);
        match flushed {
            Flushed::Broken => {
                context.count_disconnect();
                Next::Close
            }
            Flushed::Blocked | Flushed::More => {
                let patience = context.settings.response_patience;
                self.deadline_us = self.unsent.deadline_us(self.fd.as_raw_fd(), patience, now_us);
                if flushed == Flushed::More { Next::Yield } else { Next::Wait }
            }
            Flushed::All => self.after_answer(context, now_us),
        }
    }

    /// The answer is sent: the next request, or the end.
    pub fn after_answer(&mut self, context: &Shared, now_us: u64) -> Next {
        if !self.closes {
            self.phase = Phase::Head;
            self.deadline_us = now_us + context.settings.keep_alive_us;
            return Next::Wait;
        }
        if !self.lingers {
            return Next::Close;
        }
        sys::shut_down_write(self.fd.as_raw_fd());
        self.phase = Phase::Linger;
        self.deadline_us = now_us + LINGER_US;
        self.discard()
    }

    fn discard(&mut self) -> Next {
        let mut sink = [0u8; 16 * 1024];
        self.has_more = false;
        // Bounded, so that one client cannot keep the reactor; what still comes raises a new edge, and the deadline ends
        // it in any case.
        for _ in 0..16 {
            match sys::receive(self.fd.as_raw_fd(), &mut sink) {
                Ok(0) => return Next::Close,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Next::Wait,
                Err(_) => return Next::Close,
            }
        }
        Next::Wait
    }

    /// The call is over and its answer is sent or in `unsent`: makes the connection ready for what follows.
    /// The request's buffer stays when bytes of a next request are in it.
    pub fn finish_call(&mut self, context: &Shared, now_us: u64) -> Next {
        self.answered += 1;
        self.received = 0;
        self.intake.clear();
        if let Some(buffer) = self.buffer.as_mut() {
            buffer.next_request();
        }
        if self.unsent.is_empty() {
            return self.after_answer(context, now_us);
        }
        self.phase = Phase::Write;
        // Room may have come while the call ran, and nobody would be told again.
        self.is_write_armed = false;
        self.on_writable(context, now_us)
    }
}

fn invalid(reject: Reject) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reject)
}

#[allow(clippy::expect_used)]
fn done_body() -> BodyDecoder {
    BodyDecoder::new(Framing::None, &prefork_core::Limits::default())
        .expect("no body is within every limit")
}
