//! `wsgi.input`: the request body as the app reads it.
//!
//! A small body was received before the call and is here as bytes. A large one is received while the app reads: then
//! the call itself is shared between this object and the exchange.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prefork_core::Reject;
use prefork_io::reactor::Call;
use prefork_io::server::Server;
use prefork_io::spool::SpoolFile;
use prefork_io::sys::{self, Direction};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

use crate::errors::BodyFailure;
use crate::waiter::Waiter;

/// Read at once when the app asks for all or for a line.
const PIECE_BYTES: usize = 64 * 1024;

/// A call whose body is still coming.
pub struct Stream {
    server: Arc<Server>,
    number: usize,
    waiter: Waiter,
    state: Mutex<StreamState>,
}

#[derive(Default)]
struct StreamState {
    /// `None` once the call is over.
    call: Option<Call>,
    is_continue_due: bool,
    /// What went wrong with the body; then the connection cannot go on.
    failure: Option<BodyFailure>,
}

impl Stream {
    /// Shares `call` until [`Stream::end`].
    pub fn new(server: Arc<Server>, number: usize, waiter: Waiter, call: Call) -> Arc<Self> {
        let is_continue_due =
            call.request().head.expects_continue && call.request().body().is_empty();
        let state = StreamState { call: Some(call), is_continue_due, failure: None };
        Arc::new(Self { server, number, waiter, state: Mutex::new(state) })
    }

    /// INVARIANT: whoever holds this lock waits for nothing, neither the client nor the GIL, so that it may be waited for
    /// with the GIL held.
    fn lock(&self) -> MutexGuard<'_, StreamState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Uses the call, to send something of its answer: from then on `100 Continue` is too late.
    pub fn with_call<T>(&self, action: impl FnOnce(&mut Call) -> T) -> Option<T> {
        let mut state = self.lock();
        state.is_continue_due = false;
        state.call.as_mut().map(action)
    }

    /// Looks at the call without sending anything.
    pub fn peek<T>(&self, look: impl FnOnce(&Call) -> T) -> Option<T> {
        self.lock().call.as_ref().map(look)
    }

    /// Takes the call back; what still reads this object gets an error.
    pub fn end(&self) -> Option<Call> {
        self.lock().call.take()
    }

    /// The status to answer when the app failed because its body did.
    pub fn failure_status(&self) -> Option<u16> {
        self.lock().failure.map(BodyFailure::status)
    }

    /// Whether all of the body was received without failure.
    pub fn is_received(&self) -> bool {
        let state = self.lock();
        state.failure.is_none() && state.call.as_ref().is_some_and(|call| call.is_body_received())
    }

    /// Fills `into` from the front, waiting for the client; 0 is the end of the body. Needs no GIL.
    fn read(&self, into: &mut [u8]) -> Result<usize, BodyFailure> {
        let mut state = self.lock();
        let result = loop {
            match read_received(&mut state, into) {
                Ok(Some(count)) => break Ok(count),
                Err(failure) => break Err(failure),
                Ok(None) if matches!(self.waiter, Waiter::Greenlet(_)) => {
                    return Err(BodyFailure::Pending);
                }
                Ok(None) => {}
            }
            let Some(call) = state.call.as_mut() else { break Err(BodyFailure::CallOver) };
            let (fd, patience) = self.server.begin_body_wait(self.number, call);
            // Not under the lock: meanwhile the app may answer in another thread.
            drop(state);
            let waited = sys::wait_for(fd, Direction::Read, patience);
            state = self.lock();
            if state.call.is_none() {
                break Err(BodyFailure::CallOver);
            }
            self.server.end_body_wait(self.number);
            match waited {
                Ok(true) => {}
                Ok(false) => break Err(BodyFailure::Slow),
                Err(_) => break Err(BodyFailure::Truncated),
            }
        };
        if let Err(failure) = result {
            state.failure = Some(failure);
        }
        result
    }

    /// Waits until more of the body may be there, letting other greenlets run.
    fn wait(&self, py: Python<'_>) -> PyResult<()> {
        let begin = |call: &mut Call| self.server.begin_body_wait(self.number, call);
        let Some((fd, patience)) = self.lock().call.as_mut().map(begin) else { return Ok(()) };
        let waited = self.waiter.run(py, |wait| wait(fd, Direction::Read, patience));
        let mut state = self.lock();
        if state.call.is_none() {
            return waited.map(drop);
        }
        self.server.end_body_wait(self.number);
        match waited? {
            Ok(true) => {}
            Ok(false) => state.failure = Some(BodyFailure::Slow),
            Err(_) => state.failure = Some(BodyFailure::Truncated),
        }
        Ok(())
    }
}

/// What has come; `None` when that is nothing, and more is to come.
fn read_received(state: &mut StreamState, into: &mut [u8]) -> Result<Option<usize>, BodyFailure> {
    if let Some(failure) = state.failure {
        return Err(failure);
    }
    let is_continue_due = std::mem::take(&mut state.is_continue_due);
    let call = state.call.as_mut().ok_or(BodyFailure::CallOver)?;
    if is_continue_due {
        // Straight to the socket: it is no part of the answer, after which a 504 could not be sent any more.
        if !call.send_continue() {
            return Err(BodyFailure::Truncated);
        }
    }
    loop {
        let request = call.request_mut();
        let ready = request.body().len().min(into.len());
        if ready > 0 {
            into[..ready].copy_from_slice(&request.body()[..ready]);
            request.take_body(ready);
            return Ok(Some(ready));
        }
        if call.is_body_received() || into.is_empty() {
            return Ok(Some(0));
        }
        match call.receive_body(into, sys::monotonic_us()) {
            Ok(0) => {}
            Ok(count) => return Ok(Some(count)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(failure_of(&error)),
        }
    }
}

fn failure_of(error: &io::Error) -> BodyFailure {
    let reject = error.get_ref().and_then(|inner| inner.downcast_ref::<Reject>());
    reject.map_or(BodyFailure::Truncated, |&reject| BodyFailure::Rejected(reject))
}

/// Where the bytes come from.
enum Source {
    /// All of it is here.
    Here,
    /// The rest of it is in a file, from this offset on.
    File(SpoolFile, u64),
    /// It is still coming.
    Stream(Arc<Stream>),
}

impl Source {
    /// How much to ask for at once when `want` bytes are wanted.
    fn piece_bytes(&self, want: usize) -> usize {
        match self {
            // It is all there: in one piece.
            Self::File(file, at) if want > PIECE_BYTES => {
                let left = usize::try_from(file.length() - at).unwrap_or(usize::MAX);
                want.min(left.max(1))
            }
            _ => want.clamp(1, PIECE_BYTES),
        }
    }

    /// Fills `into` from the front; 0 is the end of the body. Needs no GIL.
    fn read(&mut self, into: &mut [u8]) -> Result<usize, BodyFailure> {
        match self {
            Self::Here => Ok(0),
            Self::Stream(stream) => stream.read(into),
            Self::File(file, at) => {
                let count = file.read_at(into, *at).map_err(|_| BodyFailure::Spool)?;
                *at += count as u64;
                Ok(count)
            }
        }
    }
}

/// The object itself.
#[pyclass(frozen, module = "prefork._engine", name = "Input")]
pub struct Input {
    body: Mutex<Body>,
}

struct Body {
    source: Source,
    /// Read from the stream, or all there is; consumed up to `at`.
    held: Vec<u8>,
    at: usize,
}

impl Input {
    /// No body.
    pub fn empty() -> Self {
        Self::new(Source::Here, Vec::new())
    }

    /// The body of a request that was received whole; `None` when it is empty.
    pub fn of_received(call: &mut Call) -> Option<Self> {
        if let Some(file) = call.take_body_file() {
            return Some(Self::new(Source::File(file, 0), Vec::new()));
        }
        let is_empty = call.request().body().is_empty();
        (!is_empty).then(|| Self::new(Source::Here, call.request_mut().take_whole_body()))
    }

    fn new(source: Source, held: Vec<u8>) -> Self {
        Self { body: Mutex::new(Body { source, held, at: 0 }) }
    }

    /// Bytes of a body that was received whole and nobody has read yet.
    pub fn length(&self) -> u64 {
        let body = self.body.lock().unwrap_or_else(PoisonError::into_inner);
        let in_file = match &body.source {
            Source::File(file, at) => file.length() - at,
            Source::Here | Source::Stream(_) => 0,
        };
        in_file + body.rest().len() as u64
    }

    /// The body that is still coming.
    pub fn of_stream(stream: Arc<Stream>) -> Self {
        Self::new(Source::Stream(stream), Vec::new())
    }

    /// Runs `action` without the GIL when it may have to wait for the client, or for another reader.
    fn run<T: Send>(
        &self,
        py: Python<'_>,
        mut action: impl FnMut(&mut Body) -> Result<T, BodyFailure> + Send,
    ) -> PyResult<T> {
        loop {
            let locked = || action(&mut self.body.lock().unwrap_or_else(PoisonError::into_inner));
            match py.detach(locked) {
                Err(BodyFailure::Pending) => self.wait(py)?,
                result => return result.map_err(PyErr::from),
            }
        }
    }

    fn wait(&self, py: Python<'_>) -> PyResult<()> {
        let stream = match &self.body.lock().unwrap_or_else(PoisonError::into_inner).source {
            Source::Stream(stream) => stream.clone(),
            Source::Here | Source::File(..) => return Ok(()),
        };
        stream.wait(py)
    }
}

impl Body {
    fn rest(&self) -> &[u8] {
        &self.held[self.at..]
    }

    /// Takes `count` bytes of what is held.
    fn take(&mut self, count: usize) -> Vec<u8> {
        let taken = if self.at == 0 && count == self.held.len() {
            std::mem::take(&mut self.held)
        } else {
            self.held[self.at..self.at + count].to_vec()
        };
        self.at += count;
        if self.at >= self.held.len() {
            self.held.clear();
            self.at = 0;
        }
        taken
    }

    /// Gets more of a stream; false at the end of the body.
    fn fill(&mut self, want: usize) -> Result<bool, BodyFailure> {
        if matches!(self.source, Source::Here) {
            return Ok(false);
        }
        if self.at > 0 {
            self.held.drain(..self.at);
            self.at = 0;
        }
        let start = self.held.len();
        self.held.resize(start + self.source.piece_bytes(want), 0);
        let result = self.source.read(&mut self.held[start..]);
        self.held.truncate(start + result.as_ref().map_or(0, |&count| count));
        Ok(result? > 0)
    }

    fn read(&mut self, size: Option<usize>) -> Result<Vec<u8>, BodyFailure> {
        let want = size.unwrap_or(usize::MAX);
        while self.rest().len() < want && self.fill(want - self.rest().len())? {}
        Ok(self.take(want.min(self.rest().len())))
    }

    fn read_line(&mut self, size: Option<usize>) -> Result<Vec<u8>, BodyFailure> {
        let want = size.unwrap_or(usize::MAX);
        let mut searched = 0;
        loop {
            let rest = self.rest();
            if let Some(at) = rest[searched..].iter().position(|&byte| byte == b'\n') {
                return Ok(self.take((searched + at + 1).min(want)));
            }
            searched = rest.len();
            if searched >= want || !self.fill(PIECE_BYTES)? {
                return Ok(self.take(want.min(self.rest().len())));
            }
        }
    }
}

/// -1 and `None` mean all, as for every file object.
fn size_of(size: Option<isize>) -> Option<usize> {
    size.and_then(|size| usize::try_from(size).ok())
}

#[pymethods]
impl Input {
    /// Read up to `size` bytes; all with -1 or None.
    #[pyo3(signature = (size=None))]
    fn read<'py>(&self, py: Python<'py>, size: Option<isize>) -> PyResult<Bound<'py, PyBytes>> {
        let bytes = self.run(py, |body| body.read(size_of(size)))?;
        Ok(PyBytes::new(py, &bytes))
    }

    /// Read one line, of at most `size` bytes.
    #[pyo3(signature = (size=None))]
    fn readline<'py>(&self, py: Python<'py>, size: Option<isize>) -> PyResult<Bound<'py, PyBytes>> {
        let bytes = self.run(py, |body| body.read_line(size_of(size)))?;
        Ok(PyBytes::new(py, &bytes))
    }

    /// Read lines until there are `hint` bytes of them, or all.
    #[pyo3(signature = (hint=None))]
    fn readlines<'py>(&self, py: Python<'py>, hint: Option<isize>) -> PyResult<Bound<'py, PyList>> {
        let enough = size_of(hint).filter(|&hint| hint > 0).unwrap_or(usize::MAX);
        let (lines, mut total) = (PyList::empty(py), 0);
        while total < enough {
            let line = self.run(py, |body| body.read_line(None))?;
            if line.is_empty() {
                break;
            }
            total += line.len();
            lines.append(PyBytes::new(py, &line))?;
        }
        Ok(lines)
    }

    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let line = self.run(py, |body| body.read_line(None))?;
        Ok((!line.is_empty()).then(|| PyBytes::new(py, &line)))
    }

    /// Nothing to close: the engine deals with what was not read.
    #[allow(clippy::unused_self)]
    fn close(&self) {}
}
