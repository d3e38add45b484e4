//! One connection: its buffer, where it is in the life of a request, what is still to be sent.
//!
//! A connection has one owner at a time: the reactor while it waits for the client, an app thread while a call
//! runs. So nothing here locks, and nothing here knows epoll, threads or Python.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use prefork_core::forwarded::{self, Scheme};
use prefork_core::{Body, Framing, Head, Method, Parsed, Reject, head};

use crate::context::{Context, Reserved};
use crate::sys::{self, Address};

/// A body up to this size is read before its call starts.
pub const SMALL_BODY_BYTES: usize = 64 * 1024;

/// So is one up to this size while there is memory set aside for it; a larger one is streamed to the app.
pub const BUFFERED_BODY_BYTES: usize = 1024 * 1024;

/// Unsent bytes above which the app has to wait for its client.
pub const UNSENT_BYTES_MAX: usize = 1024 * 1024;

/// First size of a receive buffer.
const BUFFER_BYTES: usize = 4096;
/// Read at least this much of a body at once.
const BODY_READ_BYTES: usize = 32 * 1024;
/// A buffer that grew above this is not kept for others.
const POOLED_BYTES_MAX: usize = 128 * 1024;

/// How long a client may go on sending what nobody reads before the connection is cut.
const LINGER_US: u64 = 2_000_000;

/// Bytes of one request on their way from the socket to the app. Pooled: an idle connection has none.
#[derive(Default)]
pub struct Buffer {
    raw: Vec<u8>,
    /// First byte of the request.
    start: usize,
    /// Behind the last byte received.
    filled: usize,
    /// Behind the last byte that is part of this request.
    used: usize,
    /// Length of the complete head.
    head_len: usize,
    /// The parsed head, relative to `start`.
    pub head: Head,
    /// Decoded body bytes the app has not taken, from `body_at` on.
    body: Vec<u8>,
    body_at: usize,
}

impl Buffer {
    fn received(&self) -> &[u8] {
        &self.raw[self.start..self.filled]
    }

    /// The head's bytes: what its spans refer to.
    #[must_use]
    pub fn head_bytes(&self) -> &[u8] {
        &self.raw[self.start..self.start + self.head_len]
    }

    /// Body bytes ready for the app.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.body[self.body_at..]
    }

    /// The app took so many of [`Buffer::body`].
    pub fn take_body(&mut self, count: usize) {
        self.body_at += count;
        if self.body_at == self.body.len() {
            self.body.clear();
            self.body_at = 0;
        }
    }

    /// Takes all of a received body, leaving nothing.
    #[must_use]
    pub fn take_whole_body(&mut self) -> Vec<u8> {
        let mut body = std::mem::take(&mut self.body);
        body.drain(..self.body_at);
        self.body_at = 0;
        body
    }

    /// Room behind the received bytes, at least `want` of it.
    fn room(&mut self, want: usize) -> &mut [u8] {
        if self.start == self.filled {
            (self.start, self.filled, self.used) = (0, 0, 0);
        }
        if self.raw.len() - self.filled < want {
            if self.start > 0 {
                self.raw.copy_within(self.start..self.filled, 0);
                self.filled -= self.start;
                self.used = self.used.saturating_sub(self.start);
                self.start = 0;
            }
            let need = self.filled + want;
            if self.raw.len() < need {
                self.raw.resize(need.next_power_of_two().max(BUFFER_BYTES), 0);
            }
        }
        &mut self.raw[self.filled..]
    }

    /// Puts bytes behind the received ones, as if they had come from the socket.
    fn append(&mut self, bytes: &[u8]) {
        self.room(bytes.len())[..bytes.len()].copy_from_slice(bytes);
        self.filled += bytes.len();
    }

    /// Forgets the request, keeps what came after it.
    fn next_request(&mut self) {
        self.start = self.used;
        if self.start == self.filled {
            (self.start, self.filled, self.used) = (0, 0, 0);
        }
        self.head_len = 0;
        self.body.clear();
        self.body_at = 0;
        self.head.clear();
    }

    fn clear(&mut self) {
        self.used = self.filled;
        self.next_request();
    }
}

/// Buffers that no connection needs now.
#[derive(Default)]
#[allow(clippy::vec_box)] // a buffer moves between pool and connection as one pointer
pub struct Pool(Vec<Box<Buffer>>);

impl Pool {
    fn get(&mut self) -> Box<Buffer> {
        self.0.pop().unwrap_or_default()
    }

    fn put(&mut self, mut buffer: Box<Buffer>) {
        if self.0.len() < 64
            && buffer.raw.len() <= POOLED_BYTES_MAX
            && buffer.body.capacity() <= POOLED_BYTES_MAX
        {
            buffer.clear();
            self.0.push(buffer);
        }
    }
}

/// A file to be sent behind the bytes of an answer.
pub struct FileOut {
    /// A descriptor of our own: the app may close its file.
    pub fd: OwnedFd,
    /// Next byte to send.
    pub offset: i64,
    /// Bytes still to send.
    pub left: u64,
}

/// Bytes that belong to somebody else until they are sent: of the app, in the engine's case.
pub type Shared = Box<dyn AsRef<[u8]> + Send + Sync>;

/// A part of what is still to be sent.
enum Piece {
    Bytes(Vec<u8>),
    /// Bytes up to `end`.
    Shared {
        bytes: Shared,
        end: usize,
    },
    File(FileOut),
}

/// What the client has not taken yet.
#[derive(Default)]
pub struct Unsent {
    pieces: VecDeque<Piece>,
    /// Bytes of the first piece that are sent.
    at: usize,
    /// Bytes in memory, ours and shared ones.
    held: usize,
}

/// How far [`Unsent::flush`] came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flushed {
    /// All is sent.
    All,
    /// The socket is full.
    Blocked,
    /// The client is gone, or the file ended early.
    Broken,
}

impl Unsent {
    /// Nothing is left to send.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Bytes held in memory, ours and shared ones.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held
    }

    /// Adds bytes to be sent behind what is there.
    pub fn push(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.held += bytes.len();
        match self.pieces.back_mut() {
            Some(Piece::Bytes(last)) => last.extend_from_slice(bytes),
            _ => self.pieces.push_back(Piece::Bytes(bytes.to_vec())),
        }
    }

    /// Adds the part `from..end` of bytes that are not copied.
    pub fn push_shared(&mut self, bytes: Shared, from: usize, end: usize) {
        if from == end {
            return;
        }
        if self.pieces.is_empty() {
            self.at = from;
        } else if from > 0 {
            return self.push(&(*bytes).as_ref()[from..end]);
        }
        self.held += end - from;
        self.pieces.push_back(Piece::Shared { bytes, end });
    }

    /// Adds a file to be sent behind what is there.
    pub fn push_file(&mut self, file: FileOut) {
        if file.left > 0 {
            self.pieces.push_back(Piece::File(file));
        }
    }

    /// Sends what the socket takes; adds what went out to `sent`.
    pub fn flush(&mut self, fd: RawFd, sent: &mut u64) -> Flushed {
        while let Some(piece) = self.pieces.front_mut() {
            let (result, left) = match piece {
                Piece::Bytes(bytes) => (sys::send(fd, &bytes[self.at..]), bytes.len() - self.at),
                Piece::Shared { bytes, end } => {
                    let rest = &(**bytes).as_ref()[self.at..*end];
                    (sys::send(fd, rest), rest.len())
                }
                Piece::File(file) => (
                    sys::send_file(fd, file.fd.as_raw_fd(), &mut file.offset, file.left),
                    usize::try_from(file.left).unwrap_or(usize::MAX),
                ),
            };
            let count = match result {
                // Only of a file: it is shorter than it was.
                Ok(0) => return Flushed::Broken,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Flushed::Blocked,
                Err(_) => return Flushed::Broken,
            };
            *sent += count as u64;
            match piece {
                Piece::Bytes(_) | Piece::Shared { .. } => {
                    self.held -= count;
                    self.at += count;
                }
                Piece::File(file) => file.left -= count as u64,
            }
            if count == left {
                self.pieces.pop_front();
                self.at = 0;
            } else {
                self.compact();
            }
        }
        Flushed::All
    }

    /// Moved to the front only when that frees half: else each flush of a slow client would move a megabyte.
    fn compact(&mut self) {
        if let Some(Piece::Bytes(bytes)) = self.pieces.front_mut()
            && self.at > bytes.len() / 2
        {
            bytes.drain(..self.at);
            self.at = 0;
        }
    }
}

/// Where a connection is while the reactor has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Between requests, or in the middle of a head.
    Head,
    /// In the middle of a body that is read before its call.
    Body,
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
    decoder: Body,
    /// Set aside for the body, until the call is over.
    memory: Option<Reserved>,
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
        context: &Context,
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
            memory: None,
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
        if buffer.head.framing == Framing::Chunked {
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
    pub fn on_readable(&mut self, context: &Context, pool: &mut Pool, now_us: u64) -> Next {
        match self.phase {
            Phase::Head | Phase::Body => self.read_request(context, pool, now_us),
            Phase::Linger => self.discard(),
            // A client that sends the next request before it took the answer waits for it.
            Phase::Write | Phase::Call => Next::Wait,
        }
    }

    fn read_request(&mut self, context: &Context, pool: &mut Pool, now_us: u64) -> Next {
        loop {
            let want = if self.phase == Phase::Body { BODY_READ_BYTES } else { 1 };
            let buffer = self.buffer.get_or_insert_with(|| pool.get());
            let room = buffer.room(want.max(if buffer.filled == 0 { BUFFER_BYTES } else { 512 }));
            let room_len = room.len();
            match sys::receive(self.fd.as_raw_fd(), room) {
                Ok(0) => return self.on_end(context, pool),
                Ok(count) => {
                    buffer.filled += count;
                    self.received += count as u64;
                    self.has_more = count == room_len;
                    match self.advance(context, pool, now_us) {
                        // Edge-triggered: a read that did not fill its room has emptied the socket.
                        Next::Wait
                            if matches!(self.phase, Phase::Head | Phase::Body) && self.has_more => {
                        }
                        next => return next,
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

    /// The client ended its side before a request was complete.
    fn on_end(&mut self, context: &Context, pool: &mut Pool) -> Next {
        if self.phase == Phase::Body || !self.partial().is_empty() {
            context.count_disconnect();
        }
        self.release(pool);
        Next::Close
    }

    /// Makes what it can of the bytes that are there.
    pub fn advance(&mut self, context: &Context, pool: &mut Pool, now_us: u64) -> Next {
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
            match Body::new(buffer.head.framing, &context.settings.limits) {
                Ok(decoder) => self.decoder = decoder,
                Err(reject) => return self.refuse(reject, context, pool, now_us),
            }
            self.phase = Phase::Body;
        }
        match self.decode() {
            Err(reject) => self.refuse(reject, context, pool, now_us),
            Ok(()) if self.is_call_due(context) => {
                self.phase = Phase::Call;
                self.ready_us = match std::mem::take(&mut self.passed_ready_us) {
                    0 => now_us,
                    passed_us => passed_us,
                };
                Next::Call
            }
            Ok(()) => {
                self.deadline_us = now_us + context.settings.body_timeout_us;
                Next::Wait
            }
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

    /// The body is here, is to be streamed, or will only come when the app asks for it.
    fn is_call_due(&mut self, context: &Context) -> bool {
        let request = self.request();
        if self.decoder.is_done() || request.head.expects_continue {
            return true;
        }
        let (size, most) = match request.head.framing {
            Framing::Length(length) => {
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                (length, length)
            }
            _ => (request.body().len(), BUFFERED_BODY_BYTES),
        };
        if size <= SMALL_BODY_BYTES {
            return false;
        }
        if size <= BUFFERED_BODY_BYTES && self.memory.is_none() {
            self.memory = context.bodies.take(most);
        }
        size > BUFFERED_BODY_BYTES || self.memory.is_none()
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
    pub fn receive_body(&mut self, direct: &mut [u8]) -> io::Result<usize> {
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
        self.decode().map_err(invalid)?;
        Ok(0)
    }

    /// Answers a refused request by itself and gives the connection up.
    pub fn refuse(
        &mut self,
        reject: Reject,
        context: &Context,
        pool: &mut Pool,
        now_us: u64,
    ) -> Next {
        context.note_refusal(self, reject.status(), reject.code());
        self.answer_and_close(reject.status(), reject.message(), context, pool, now_us)
    }

    /// A wait is over: answers 408 when a request had begun.
    pub fn on_deadline(&mut self, context: &Context, pool: &mut Pool, now_us: u64) -> Next {
        match self.phase {
            Phase::Head if self.partial().is_empty() => Next::Close,
            Phase::Head | Phase::Body => {
                context.note_refusal(self, 408, "request_timeout");
                self.answer_and_close(408, "the request took too long", context, pool, now_us)
            }
            Phase::Write => {
                context.count_disconnect();
                Next::Close
            }
            Phase::Linger => Next::Close,
            Phase::Call => Next::Wait,
        }
    }

    fn answer_and_close(
        &mut self,
        status: u16,
        why: &str,
        context: &Context,
        pool: &mut Pool,
        now_us: u64,
    ) -> Next {
        let is_head = self.head().is_some_and(|head| head.method == Method::Head);
        self.unsent.push(&context.plain_answer(status, why, is_head));
        self.closes = true;
        self.lingers = true;
        self.release(pool);
        self.phase = Phase::Write;
        self.deadline_us = now_us + context.settings.write_timeout_us;
        self.on_writable(context, now_us)
    }

    /// There may be room to send: goes on with the answer, then with what comes after it.
    pub fn on_writable(&mut self, context: &Context, now_us: u64) -> Next {
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
            Flushed::Blocked => {
                if sent > 0 {
                    self.deadline_us = now_us + context.settings.write_timeout_us;
                }
                Next::Wait
            }
            Flushed::All => self.after_answer(context, now_us),
        }
    }

    /// The answer is sent: the next request, or the end.
    pub fn after_answer(&mut self, context: &Context, now_us: u64) -> Next {
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
    pub fn finish_call(&mut self, context: &Context, now_us: u64) -> Next {
        self.answered += 1;
        self.received = 0;
        self.memory = None;
        if let Some(buffer) = self.buffer.as_mut() {
            buffer.next_request();
        }
        if self.unsent.is_empty() {
            return self.after_answer(context, now_us);
        }
        self.phase = Phase::Write;
        // Room may have come while the call ran, and nobody would be told again.
        self.is_write_armed = false;
        self.deadline_us = now_us + context.settings.write_timeout_us;
        self.on_writable(context, now_us)
    }
}

fn invalid(reject: Reject) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reject)
}

#[allow(clippy::expect_used)]
fn done_body() -> Body {
    Body::new(Framing::None, &prefork_core::Limits::default())
        .expect("no body is within every limit")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    fn read_all(socket: &UnixStream, count: usize) -> Vec<u8> {
        let mut all = vec![0; count];
        std::io::Read::read_exact(&mut &*socket, &mut all).unwrap();
        all
    }

    #[test]
    fn what_is_unsent_goes_out_in_order_however_slowly_it_is_taken() {
        let (near, far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        let mut unsent = Unsent::default();
        unsent.push(b"head");
        unsent.push_shared(Box::new(vec![b's'; 600_000]), 0, 500_000);
        unsent.push(&vec![b'b'; 300_000]);
        unsent.push_shared(Box::new(vec![b't'; 10]), 4, 10);
        assert_eq!(unsent.held(), 800_010);
        let expected =
            [b"head".to_vec(), vec![b's'; 500_000], vec![b'b'; 300_000], vec![b't'; 6]].concat();
        let (mut sent, mut taken) = (0, Vec::new());
        while unsent.flush(near.as_raw_fd(), &mut sent) != Flushed::All {
            taken.extend(read_all(&far, usize::try_from(sent).unwrap() - taken.len()));
        }
        taken.extend(read_all(&far, expected.len() - taken.len()));
        assert!(taken == expected);
        assert_eq!((unsent.held(), unsent.is_empty()), (0, true));
        assert_eq!(sent, expected.len() as u64);
    }

    #[test]
    fn a_shared_part_that_was_begun_elsewhere_goes_on_from_there() {
        let (near, far) = UnixStream::pair().unwrap();
        let mut unsent = Unsent::default();
        unsent.push_shared(Box::new(b"0123456789".to_vec()), 3, 8);
        assert_eq!(unsent.held(), 5);
        assert_eq!(unsent.flush(near.as_raw_fd(), &mut 0), Flushed::All);
        assert_eq!(read_all(&far, 5), b"34567");
    }

    #[test]
    fn a_client_that_left_and_a_file_that_shrank_are_broken() {
        let (near, far) = UnixStream::pair().unwrap();
        let mut unsent = Unsent::default();
        let fd = std::fs::File::open("/dev/null").unwrap().into();
        unsent.push_file(FileOut { fd, offset: 0, left: 10 });
        assert_eq!(unsent.flush(near.as_raw_fd(), &mut 0), Flushed::Broken);
        drop(far);
        let mut unsent = Unsent::default();
        unsent.push(b"x");
        assert_eq!(unsent.flush(near.as_raw_fd(), &mut 0), Flushed::Broken);
    }
}
