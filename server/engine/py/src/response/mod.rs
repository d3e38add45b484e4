//! One answer: `start_response`, `write`, and the bytes of head and body on their way to the client.
//!
//! An exchange is reused for call after call of one app thread. INVARIANT: no Python code runs and the GIL is not
//! released while `state` is locked, so the lock is never waited for with the GIL held.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prefork_core::Method;
use prefork_core::response::{BodyEncoder, HeadWriter, OwnFields, RequestInfo, ResponseHead};
use prefork_io::accounting::CallResult;
use prefork_io::out_queue::{FileSegment, SharedBytes};
use prefork_io::reactor::Call;
use prefork_io::server::{Sent, Server, Wait};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;

use crate::errors;
use crate::file_wrapper::bytes_block;
use crate::waiter::Waiter;

mod slot;
mod start;

pub use slot::RequestSlot;

/// A block up to this size is copied behind what goes before it, to be sent as one piece.
const COPIED_BODY_BYTES: usize = 16 * 1024;

/// Memory that is kept for the next answer.
const KEPT_OUT_BYTES: usize = 256 * 1024;

/// How far the answer is.
#[derive(Default)]
enum Progress {
    /// `start_response` was not called.
    #[default]
    Silent,
    /// The head can still be replaced.
    Started(ResponseHead),
    /// The head is finished; the body follows it.
    Body(BodyEncoder),
}

#[derive(Default)]
struct State {
    held: Option<RequestSlot>,
    /// What goes out next, the head first.
    out: Vec<u8>,
    heads: HeadWriter,
    progress: Progress,
    /// Bytes of this answer went to the socket.
    is_sent: bool,
    /// The client takes no more.
    is_gone: bool,
    /// Once the body has come to its end: whether the connection can carry another request.
    ended: Option<bool>,
    status: u16,
    body_bytes: u64,
    /// When the call began.
    start_us: u64,
    /// The bound method `write`, once made. A reference cycle, which [`Exchange::retire`] breaks.
    write: Option<Py<PyAny>>,
}

/// See the head of this file.
#[pyclass(frozen, module = "prefork._engine")]
pub struct Exchange {
    server: Arc<Server>,
    number: usize,
    waiter: Waiter,
    state: Mutex<State>,
    /// What the server adds to each head, and the tenth of a second that its date is of.
    own_fields: Mutex<(u64, OwnFields)>,
}

impl Exchange {
    /// An exchange for calls of the app thread `number`.
    pub fn new(server: Arc<Server>, number: usize, waiter: Waiter) -> Self {
        Self {
            server,
            number,
            waiter,
            state: Mutex::default(),
            own_fields: Mutex::new((u64::MAX, OwnFields::default())),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call begins.
    pub fn open(&self, held: RequestSlot, start_us: u64) {
        let mut state = self.lock();
        state.held = Some(held);
        state.out.clear();
        state.out.shrink_to(KEPT_OUT_BYTES);
        state.progress = Progress::Silent;
        state.is_sent = false;
        state.is_gone = false;
        state.ended = None;
        state.status = 500;
        state.body_bytes = 0;
        state.start_us = start_us;
    }

    /// Whether the app kept `write`.
    pub fn is_write_kept(&self) -> bool {
        // SAFETY: the caller is a method of a thread that has the GIL; the object lives.
        self.lock()
            .write
            .as_ref()
            .is_some_and(|write| unsafe { ffi::Py_REFCNT(write.as_ptr()) } > 1)
    }

    /// No call will come any more.
    pub fn retire(&self) {
        let write = self.lock().write.take();
        drop(write);
    }

    /// `Server` and `Date`, renewed ten times a second at most.
    fn own_fields(&self, now_us: u64) -> MutexGuard<'_, (u64, OwnFields)> {
        let mut own = self.own_fields.lock().unwrap_or_else(PoisonError::into_inner);
        if now_us / 100_000 != own.0 {
            let shared = &self.server.shared;
            *own = (now_us / 100_000, OwnFields::new(&shared.settings.server, &shared.date()));
        }
        own
    }

    /// What of the request decides how its answer looks; `None` after the call.
    fn answering(&self, state: &State) -> Option<RequestInfo> {
        let held = state.held.as_ref()?;
        let is_received = held.is_body_received();
        held.peek(|call| {
            let request = call.request();
            RequestInfo {
                minor: request.head.minor,
                is_head: request.head.method == Method::Head,
                keep_alive: is_received && self.server.may_keep(call),
            }
        })
    }

    /// Finishes the head, once; what follows is body.
    fn begin_body(&self, state: &mut State, whole_body: Option<u64>) -> PyResult<()> {
        match std::mem::take(&mut state.progress) {
            Progress::Started(reply) => {
                let own = self.own_fields(state.start_us);
                state.progress = Progress::Body(reply.finish(&mut state.out, &own.1, whole_body));
                Ok(())
            }
            Progress::Body(outgoing) => {
                state.progress = Progress::Body(outgoing);
                Ok(())
            }
            Progress::Silent => Err(errors::body_before_start()),
        }
    }

    /// Sends what is in `out`, then `body`. False when the client takes no more.
    fn send(&self, state: &mut State, body: Option<(SharedBytes, usize)>, is_rest: bool) -> bool {
        let State { held: Some(held), out, .. } = state else { return false };
        let sent = held.with(|call| self.server.send(self.number, call, out, body, is_rest));
        out.clear();
        state.is_sent = true;
        state.is_gone = sent != Some(Sent::Fine);
        !state.is_gone
    }

    /// Adds one block of a body that goes on, and sends it; waits first when the client is far behind. False when it
    /// takes no more.
    fn add_block(&self, block: &Bound<'_, PyBytes>) -> PyResult<bool> {
        if self.server.is_behind(self.number) {
            let make_room = |wait: Wait<'_>| self.server.make_room(self.number, wait);
            let sent = self.waiter.run(block.py(), make_room);
            if !matches!(sent, Ok(Sent::Fine)) {
                self.lock().is_gone = true;
            }
            sent?;
        }
        Ok(self.add_to_body(block))
    }

    fn add_to_body(&self, block: &Bound<'_, PyBytes>) -> bool {
        let mut state = self.lock();
        let state = &mut *state;
        let State { progress: Progress::Body(outgoing), out, is_gone: false, body_bytes, .. } =
            state
        else {
            return false;
        };
        let bytes = block.as_bytes();
        let admitted = outgoing.admit(bytes.len());
        *body_bytes += admitted as u64;
        // More than the Content-Length: what still comes is for nobody, and may never end.
        let has_room = outgoing.excess() == 0;
        if admitted == 0 {
            return self.send(state, None, false) && has_room;
        }
        outgoing.write_prefix(out, admitted);
        let suffix = outgoing.suffix();
        if admitted <= COPIED_BODY_BYTES {
            out.extend_from_slice(&bytes[..admitted]);
            out.extend_from_slice(suffix);
            return self.send(state, None, false) && has_room;
        }
        let shared: SharedBytes = Box::new(PyBackedBytes::from(block.clone()));
        let is_sent = self.send(state, Some((shared, admitted)), false);
        state.out.extend_from_slice(suffix);
        is_sent && has_room
    }

    /// Sends an answer whose body is all there: never waits for the client.
    pub fn send_whole(&self, blocks: &[Bound<'_, PyBytes>]) -> PyResult<()> {
        let mut state = self.lock();
        let state = &mut *state;
        let total: usize = blocks.iter().map(|block| block.as_bytes().len()).sum();
        self.begin_body(state, Some(total as u64))?;
        for block in blocks {
            let bytes = block.as_bytes();
            let State {
                progress: Progress::Body(outgoing), out, is_gone: false, body_bytes, ..
            } = state
            else {
                return Ok(());
            };
            let admitted = outgoing.admit(bytes.len());
            if admitted == 0 {
                continue;
            }
            *body_bytes += admitted as u64;
            // In chunks only when the app used write() before.
            outgoing.write_prefix(out, admitted);
            let suffix = outgoing.suffix();
            if admitted <= COPIED_BODY_BYTES {
                out.extend_from_slice(&bytes[..admitted]);
            } else {
                let shared: SharedBytes = Box::new(PyBackedBytes::from(block.clone()));
                self.send(state, Some((shared, admitted)), true);
            }
            state.out.extend_from_slice(suffix);
        }
        Ok(())
    }

    /// Sends one block of a body that goes on.
    pub fn send_block(&self, block: &Bound<'_, PyAny>) -> PyResult<bool> {
        let block = bytes_block(block)?;
        if block.as_bytes().is_empty() {
            return Ok(!self.lock().is_gone);
        }
        self.begin_body(&mut self.lock(), None)?;
        self.add_block(block)
    }

    /// Sends an answer whose body is a file.
    pub fn send_file(&self, mut file: FileSegment) -> PyResult<()> {
        let mut state = self.lock();
        self.begin_body(&mut state, Some(file.left))?;
        let State { progress: Progress::Body(outgoing), held: Some(held), out, .. } = &mut *state
        else {
            return Ok(());
        };
        let admitted = outgoing.admit(usize::try_from(file.left).unwrap_or(usize::MAX));
        file.left = admitted as u64;
        let length = file.left;
        // In chunks only when the app used write() before; an empty chunk would end the body.
        if admitted > 0 {
            outgoing.write_prefix(out, admitted);
        }
        let suffix = if admitted > 0 { outgoing.suffix() } else { b"" };
        let sent = held
            .with(|call| self.server.send_file(self.number, call, out, file))
            .unwrap_or(Sent::Gone);
        out.clear();
        out.extend_from_slice(suffix);
        state.is_sent = true;
        state.is_gone = sent == Sent::Gone;
        state.body_bytes += length;
        Ok(())
    }

    /// Answers for an app that failed. Once something was sent, all that can be done is to cut the answer short.
    pub fn fail(&self, py: Python<'_>) {
        let mut state = self.lock();
        let status = match &state.held {
            Some(RequestSlot::Shared(stream)) => stream.failure_status(),
            _ => None,
        };
        if state.is_sent {
            state.out.clear();
            state.is_gone = true;
            return;
        }
        drop(state);
        let (line, body): (&[u8], &[u8]) = match status {
            Some(408) => (b"408 Request Timeout", b"the request took too long\n"),
            Some(413) => (b"413 Content Too Large", b"the body is too large\n"),
            Some(_) => (b"400 Bad Request", b"the body is malformed\n"),
            None => (b"500 Internal Server Error", b"Internal Server Error\n"),
        };
        if self.start(line, &[(b"Content-Type", b"text/plain; charset=utf-8")]).is_ok() {
            // The body of an error is there and the head was just started: nothing of this can fail.
            let _ = self.send_whole(&[PyBytes::new(py, body)]);
        }
    }

    /// Whether `start_response` was called.
    pub fn is_started(&self) -> bool {
        !matches!(self.lock().progress, Progress::Silent)
    }

    /// Ends the body: sends what is left of the answer. The client can have all of it while the app's `close()` runs.
    pub fn end_body(&self) {
        self.send_end(false);
    }

    /// `is_rest`: the call is over, so what the client does not take at once goes with the connection.
    fn send_end(&self, is_rest: bool) {
        let mut state = self.lock();
        if state.ended.is_some() {
            return;
        }
        state.ended = Some(false);
        if !state.is_gone && matches!(state.progress, Progress::Started(_)) {
            // Only a head: an empty body of known length.
            let _ = self.begin_body(&mut state, Some(0));
        }
        if !state.is_gone {
            let State { progress, out, ended, .. } = &mut *state;
            if let Progress::Body(outgoing) = progress {
                *ended = Some(outgoing.finish(out));
            }
        }
        if !state.is_gone && !state.out.is_empty() {
            self.send(&mut state, None, is_rest);
        }
    }

    /// Ends the answer, and gives the call back with what it came to.
    pub fn finish(&self) -> Option<(Call, CallResult, bool)> {
        self.send_end(true);
        let mut state = self.lock();
        let keeps = state.ended == Some(true) && !state.is_gone;
        let held = state.held.take()?;
        let is_received = held.is_body_received();
        let call = held.end()?;
        let outcome = CallResult {
            status: state.status,
            body_bytes: state.body_bytes,
            start_us: state.start_us,
            end_us: prefork_io::sys::monotonic_us(),
            is_counted: false,
        };
        Some((call, outcome, keeps && is_received))
    }
}
