//! One connection: its buffer, where it is in the life of a request, what is still to be sent.
//!
//! A connection has one owner at a time: the reactor while it waits for the client, an app thread while a call
//! runs. So nothing here locks, and nothing here knows epoll, threads or Python.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use prefork_core::forwarded::Scheme;
use prefork_core::identity::{self, MADE_ID_BYTES};
use prefork_core::{BodyDecoder, Framing, Head, Span};

use crate::access_line::without_query;
use crate::accounting::{self, Received};
use crate::buffer::{Buffer, Pool};
use crate::intake::Intake;
use crate::out_queue::Unsent;
use crate::shared::Shared;
use crate::sys::Address;

mod answer;
mod body;
mod head;

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
    pub handover_failed: bool,
    /// The id made for the current request, when it came without one and needs one.
    pub made_id: Option<[u8; MADE_ID_BYTES]>,
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
        shared: &Shared,
        now_us: u64,
    ) -> Self {
        let peer = match address {
            Address::Ip(ip, port) => {
                Peer { host: ip.to_string(), port: *port, is_trusted: shared.trusts(Some(*ip)) }
            }
            Address::Unix => Peer { host: String::new(), port: 0, is_trusted: shared.trusts(None) },
        };
        Self {
            fd,
            token: 0,
            peer,
            local,
            buffer: None,
            phase: Phase::Head,
            deadline_us: now_us + shared.settings.header_timeout_us,
            decoder: done_body(),
            intake: Intake::default(),
            scheme: Scheme::Http,
            unsent: Unsent::default(),
            closes: false,
            lingers: false,
            answered: 0,
            handover_failed: false,
            made_id: None,
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

    /// Gives the current request an id, unless it came with one.
    pub fn name_request(&mut self, shared: &Shared) {
        let request = self.request();
        let has_id = identity::request_id(&request.head, request.head_bytes()).is_some();
        self.made_id = (!has_id).then(|| shared.make_request_id());
    }

    /// Method and target of the current request as sent; `hides_query` leaves out what follows `?`.
    #[must_use]
    pub fn request_line(&self, hides_query: bool) -> &[u8] {
        let request = self.request();
        let Head { method_name, target, .. } = request.head;
        // One blank is between them (RFC 9112 §3).
        let line = Span { start: method_name.start, end: target.end }.of(request.head_bytes());
        if hides_query { without_query(line) } else { line }
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
            is_trusted: self.peer.is_trusted,
            made_id: self.made_id.as_ref().map_or(&[], |id| id),
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
    pub fn on_readable(&mut self, shared: &Shared, pool: &mut Pool, now_us: u64) -> Next {
        match self.phase {
            Phase::Head => self.read_head(shared, pool, now_us),
            Phase::Body => self.read_body(shared, pool, now_us),
            Phase::Linger => self.discard(),
            // A client that sends the next request before it took the answer waits for it.
            Phase::Full | Phase::Write | Phase::Call => Next::Wait,
        }
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
    fn on_end(&mut self, shared: &Shared, pool: &mut Pool) -> Next {
        if self.phase != Phase::Head || !self.partial().is_empty() {
            shared.count_disconnect();
        }
        self.release(pool);
        Next::Close
    }

    /// So much of the current wait was not the client's.
    pub fn excuse(&mut self, time_us: u64) {
        self.deadline_us += time_us;
        self.intake.excuse(time_us);
        self.unsent.excuse(time_us);
    }

    /// The client holds room that others wait for, and has not moved for longer than they should.
    #[must_use]
    pub fn is_in_the_way(&mut self, shared: &Shared, now_us: u64) -> bool {
        let settings = &shared.settings;
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
    pub fn give_up(&mut self, shared: &Shared, pool: &mut Pool, now_us: u64) -> Next {
        if self.phase != Phase::Write {
            return self.on_deadline(shared, pool, now_us);
        }
        shared.count_disconnect();
        Next::Close
    }

    /// A wait is over: answers 408 when a request had begun.
    pub fn on_deadline(&mut self, shared: &Shared, pool: &mut Pool, now_us: u64) -> Next {
        match self.phase {
            Phase::Head if self.partial().is_empty() => Next::Close,
            Phase::Full => self.retry_room(shared, pool, now_us),
            Phase::Head | Phase::Body => {
                accounting::note_refusal(shared, &self.received_request(), 408, "request_timeout");
                self.answer_and_close(408, "the request took too long", shared, pool, now_us)
            }
            Phase::Write => {
                self.deadline_us = self.unsent.deadline_us(
                    self.fd.as_raw_fd(),
                    shared.settings.response_patience,
                    now_us,
                );
                if self.deadline_us > now_us {
                    return Next::Wait; // the kernel had more of it than the client, and the client is taking that
                }
                self.give_up(shared, pool, now_us)
            }
            Phase::Linger => Next::Close,
            Phase::Call => Next::Wait,
        }
    }
}

#[allow(clippy::expect_used)]
fn done_body() -> BodyDecoder {
    BodyDecoder::new(Framing::None, &prefork_core::Limits::default())
        .expect("no body is within every limit")
}
