//! One connection: its buffer, where it is in the life of a request, what is still to be sent.
//!
//! A connection has one owner at a time: the reactor while it waits for the client, an app thread while a call
//! runs. So nothing here locks, and nothing here knows epoll, threads or Python.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use prefork_core::forwarded::Scheme;
use prefork_core::identity::{self, MADE_ID_BYTES};
use prefork_core::{BodyDecoder, Framing, Head, Span};

use crate::access_line::without_query;
use crate::accounting::{self, Received};
use crate::buffer::{Buffer, Pool};
use crate::intake::Intake;
use crate::out_queue::OutQueue;
use crate::shared::Shared;
use crate::sys::Address;

mod answer;
mod body;
mod head;

/// Where a connection is, with what belongs to that.
enum State {
    /// Between requests, or in the middle of a head.
    Head,
    /// The head is complete: its body is coming, or its call runs.
    Request(Incoming),
    /// The rest of an answer is being sent.
    Answer(After),
    /// Our side is shut; the client's bytes are thrown away until it ends its side, so that the answer is not
    /// destroyed by a reset (RFC 9112 §9.6).
    Linger,
}

/// A request from the end of its head to the end of its call.
struct Incoming {
    stage: Stage,
    scheme: Scheme,
    decoder: BodyDecoder,
    /// What is kept of the body, besides what the buffer holds.
    intake: Intake,
}

/// Who has to do something next for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The client: its body is read before the call.
    Body,
    /// Others: there is no room for more of the body. The client's bytes wait in its socket.
    Full { since_us: u64 },
    /// The app: the call runs, or waits to.
    Call,
}

/// What follows when an answer is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// The next request.
    Keep,
    /// The end.
    Close,
    /// The end, once the client has ended its side: it may still be sending.
    Linger,
}

impl State {
    fn incoming(&self) -> Option<&Incoming> {
        if let Self::Request(incoming) = self { Some(incoming) } else { None }
    }

    fn incoming_mut(&mut self) -> Option<&mut Incoming> {
        if let Self::Request(incoming) = self { Some(incoming) } else { None }
    }

    fn stage(&self) -> Option<Stage> {
        self.incoming().map(|incoming| incoming.stage)
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
    /// It is known as a proxy: what it says of where the app is mounted is believed too.
    pub is_listed: bool,
}

/// One connection.
pub struct Conn {
    fd: OwnedFd,
    /// Its name in the reactor.
    pub token: u64,
    /// Who is at the other end.
    pub peer: Peer,
    /// The address it came to: `SERVER_NAME` and `SERVER_PORT`.
    pub local: Address,
    buffer: Option<Box<Buffer>>,
    state: State,
    /// When the current wait is over, on the monotonic clock.
    pub deadline_us: u64,
    /// Rest of the answer, while the call runs and after it.
    pub unsent: OutQueue,
    /// Answers so far; a passed connection had at least one.
    pub answered: u32,
    /// Passing it to another worker failed once: the next answer ends it.
    pub handover_failed: bool,
    /// The id made for the current request, when it came without one and needs one.
    pub made_id: Option<[u8; MADE_ID_BYTES]>,
    /// When the current request was complete enough to be called, here or where it was handed over; 0 before.
    pub ready_us: u64,
    /// Bytes of the current request received.
    pub received: u64,
    /// The last read filled its room: there may be more, of which no edge will tell.
    pub is_unread: bool,
    /// The client ended its side; set by the reactor, also while a call runs.
    pub client_ended: Arc<AtomicBool>,
    /// That the client of the current request left is counted.
    pub is_left_counted: bool,
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
        let (host, port, ip) = match address {
            Address::Ip(ip, port) => (ip.to_string(), *port, Some(*ip)),
            Address::Unix => (String::new(), 0, None),
        };
        let (is_trusted, is_listed) = (shared.trusts(ip), shared.lists(ip));
        let peer = Peer { host, port, is_trusted, is_listed };
        Self {
            fd,
            token: 0,
            peer,
            local,
            buffer: None,
            state: State::Head,
            deadline_us: now_us + shared.settings.header_timeout_us,
            unsent: OutQueue::default(),
            answered: 0,
            handover_failed: false,
            made_id: None,
            ready_us: 0,
            received: 0,
            is_unread: false,
            client_ended: Arc::default(),
            is_left_counted: false,
        }
    }

    /// The client left before it had its answer: counts it, once for a request.
    pub fn count_left(&mut self, shared: &Shared) {
        if !std::mem::replace(&mut self.is_left_counted, true) {
            shared.count_disconnect();
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

    /// The scheme of the current request.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        self.state.incoming().map_or(Scheme::Http, |incoming| incoming.scheme)
    }

    /// Between requests, or in the middle of a head: no call depends on it.
    #[must_use]
    pub fn is_at_head(&self) -> bool {
        matches!(self.state, State::Head)
    }

    /// Between requests, nothing received.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.is_at_head() && self.partial().is_empty()
    }

    /// The rest of an answer is being sent.
    #[must_use]
    pub fn is_answering(&self) -> bool {
        matches!(self.state, State::Answer(_))
    }

    /// Whether bytes from the client are of use now.
    #[must_use]
    pub fn reads(&self) -> bool {
        match &self.state {
            State::Head | State::Linger => true,
            State::Request(incoming) => incoming.stage == Stage::Body,
            State::Answer(_) => false,
        }
    }

    /// Bytes of a next request have been received, and nobody has looked at them.
    #[must_use]
    pub fn has_leftover(&self) -> bool {
        self.is_at_head()
            && self.buffer.as_ref().is_some_and(|b| b.start < b.filled && !b.head.is_begun())
    }

    /// All received bytes from the beginning of a request that no app has seen, as they came; `None` when they cannot
    /// be had any more: the chunks of a body are gone once it is decoded.
    #[must_use]
    pub fn wire(&self) -> Option<Vec<u8>> {
        let buffer = self.buffer.as_ref()?;
        let is_spooled = self.state.incoming().is_some_and(|incoming| incoming.intake.is_spooled());
        if buffer.head.framing == Framing::Chunked || is_spooled {
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
        match &self.state {
            State::Head => self.read_head(shared, pool, now_us),
            State::Request(Incoming { stage: Stage::Body, .. }) => {
                self.read_body(shared, pool, now_us)
            }
            State::Linger => self.discard(),
            // A client that sends the next request before it took the answer waits for it.
            State::Request(_) | State::Answer(_) => Next::Wait,
        }
    }

    /// All is here that the call waits for.
    fn call(&mut self, now_us: u64) -> Next {
        if let Some(incoming) = self.state.incoming_mut() {
            incoming.stage = Stage::Call;
        }
        if self.ready_us == 0 {
            self.ready_us = now_us;
        }
        Next::Call
    }

    /// The client ended its side before a request was complete.
    fn on_end(&mut self, shared: &Shared, pool: &mut Pool) -> Next {
        if !self.is_at_head() || !self.partial().is_empty() {
            shared.count_disconnect();
        }
        self.release(pool);
        Next::Close
    }

    /// So much of the current wait was not the client's.
    pub fn excuse(&mut self, time_us: u64) {
        self.deadline_us += time_us;
        if let Some(incoming) = self.state.incoming_mut() {
            incoming.intake.excuse(time_us);
        }
        self.unsent.excuse(time_us);
    }

    /// The client holds room that others wait for, and has not moved for longer than they should.
    #[must_use]
    pub fn is_in_the_way(&mut self, shared: &Shared, now_us: u64) -> bool {
        let settings = &shared.settings;
        let deadline_us = match &self.state {
            State::Request(Incoming { stage: Stage::Body, intake, .. }) if intake.holds_room() => {
                intake.deadline_us(settings.body_patience.under_pressure())
            }
            State::Answer(_) if self.unsent.holds_room() => {
                let patience = settings.response_patience.under_pressure();
                self.unsent.deadline_us(self.fd.as_raw_fd(), patience, now_us)
            }
            _ => return false,
        };
        deadline_us <= now_us
    }

    /// The client is given up: answers 408 while its body was coming, closes when it did not read.
    pub fn give_up(&mut self, shared: &Shared, pool: &mut Pool, now_us: u64) -> Next {
        if !self.is_answering() {
            return self.on_deadline(shared, pool, now_us);
        }
        self.count_left(shared);
        Next::Close
    }

    /// A wait is over: answers 408 when a request had begun.
    pub fn on_deadline(&mut self, shared: &Shared, pool: &mut Pool, now_us: u64) -> Next {
        match self.state {
            State::Head if self.partial().is_empty() => Next::Close,
            State::Request(Incoming { stage: Stage::Call, .. }) => Next::Wait,
            State::Request(Incoming { stage: Stage::Full { since_us }, .. }) => {
                self.retry_room(since_us, shared, pool, now_us)
            }
            State::Head | State::Request(_) => {
                accounting::note_refusal(shared, &self.received_request(), 408, "request_timeout");
                self.answer_and_close(408, "the request took too long", shared, pool, now_us)
            }
            State::Answer(_) => {
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
            State::Linger => Next::Close,
        }
    }
}
