//! One app thread: takes calls, runs the app, sends what it returns.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;

use prefork_core::Framing;
use prefork_io::forked::is_forked;
use prefork_io::reactor::Call;
use prefork_io::server::{Server, Work};
use pyo3::exceptions::PySystemExit;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyTuple};
use pyo3::{ffi, intern};

use crate::environ::{Environ, StaticEnviron, thread_ident};
use crate::errors;
use crate::file_wrapper::{FileWrapper, bytes_block};
use crate::input::{Input, Stream};
use crate::response::{Exchange, RequestSlot};
use crate::waiter::Waiter;

/// What one app thread works with.
pub struct Serving<'py> {
    pub py: Python<'py>,
    pub server: Arc<Server>,
    pub number: usize,
    pub app: Bound<'py, PyAny>,
    /// Called with the app's error and what is known of its request.
    pub report_error: Bound<'py, PyAny>,
    /// Shared by all greenlets of a hub.
    pub environ: Rc<RefCell<Environ>>,
    pub waiter: Waiter,
    pub exchange: Bound<'py, Exchange>,
    pub start_response: Bound<'py, PyAny>,
}

impl<'py> Serving<'py> {
    /// Makes the calling thread an app thread; `None` when all are there already.
    pub fn new(
        server: Arc<Server>,
        app: Bound<'py, PyAny>,
        report_error: Bound<'py, PyAny>,
        static_environ: &StaticEnviron,
    ) -> PyResult<Option<Self>> {
        let py = app.py();
        let Some(number) = server.join(thread_ident(py)?) else { return Ok(None) };
        let environ = new_environ(py, static_environ)?;
        let waiter = Waiter::Thread;
        let (exchange, start_response) = new_exchange(py, &server, number, &waiter)?;
        Ok(Some(Self {
            py,
            server,
            number,
            app,
            report_error,
            environ,
            waiter,
            exchange,
            start_response,
        }))
    }

    /// Serves until the engine is done.
    pub fn run(mut self) -> PyResult<()> {
        loop {
            // Once with the GIL: under load there is work already, and giving the GIL away costs more than looking.
            let work = match self.server.poll() {
                Work::Nothing => self.py.detach(|| self.server.wait()),
                work => work,
            };
            match work {
                Work::Call(call) => self.serve(call)?,
                Work::Nothing => {}
                Work::End => {
                    self.exchange.get().retire();
                    return Ok(());
                }
            }
        }
    }

    /// Runs one call. A panic costs this connection, not the worker.
    pub fn serve(&mut self, mut call: Call) -> PyResult<()> {
        let token = call.token;
        let start_us = self.server.begin(self.number, &mut call);
        if catch_unwind(AssertUnwindSafe(|| self.answer(call, start_us))).is_err() {
            self.server.abandon(self.number, token);
            self.exchange.get().retire();
            (self.exchange, self.start_response) =
                new_exchange(self.py, &self.server, self.number, &self.waiter)?;
        }
        // Somebody kept start_response or write: a late use of it must not reach the next answer.
        // SAFETY: the GIL is held and the object lives.
        let is_kept = unsafe { ffi::Py_REFCNT(self.start_response.as_ptr()) } > 1;
        if is_kept || self.exchange.get().is_write_kept() {
            self.exchange.get().retire();
            (self.exchange, self.start_response) =
                new_exchange(self.py, &self.server, self.number, &self.waiter)?;
        }
        Ok(())
    }

    fn answer(&mut self, mut call: Call, start_us: u64) {
        let py = self.py;
        let environ = self.environ.borrow_mut().build(py, &call);
        let (held, input) = if call.is_body_received() {
            let input = Input::of_received(&mut call);
            if call.request().head.framing == Framing::Chunked
                && let Ok(environ) = &environ
            {
                let length = input.as_ref().map_or(0, Input::length);
                self.environ.borrow().set_length(environ, length);
            }
            (RequestSlot::Own(call), input)
        } else {
            let stream = Stream::new(self.server.clone(), self.number, self.waiter.clone(), call);
            (RequestSlot::Shared(stream.clone()), Some(Input::of_stream(stream)))
        };
        self.exchange.get().open(held, start_us);
        if let Err(error) = self.run_app(environ, input) {
            self.exchange.get().fail(py);
            drop(error);
        }
        if let Some((mut call, outcome, keeps)) = self.exchange.get().finish() {
            if !self.server.hold(self.number, &mut call) {
                let server = &self.server;
                // Raised only in a greenlet that was told to end meanwhile, as it does now.
                let _ = self.waiter.run(py, |wait| server.store(self.number, &mut call, wait));
            }
            self.server.end(self.number, call, outcome, keeps);
        }
    }

    /// Calls the app and sends what it returns; reports its error.
    fn run_app(&self, environ: PyResult<Bound<'py, PyDict>>, input: Option<Input>) -> PyResult<()> {
        let environ = environ.inspect_err(|error| self.report(error, None))?;
        let result = match input {
            Some(input) => Bound::new(self.py, input)
                .and_then(|input| self.environ.borrow().set_input(&environ, input.as_any()))
                .and_then(|()| self.call_app(&environ)),
            None => self.call_app(&environ),
        };
        if is_forked() {
            self.end_child(result.err());
        }
        result.inspect_err(|error| self.report(error, Some(&environ)))
    }

    /// The app forked, and this is the child on its way out of the app: it ends as a script would, without answering.
    fn end_child(&self, error: Option<PyErr>) -> ! {
        let py = self.py;
        self.waiter.park(py);
        let error = error.unwrap_or_else(|| PySystemExit::new_err(0));
        let code = match error.value(py).getattr("code") {
            Ok(code) if error.is_instance_of::<PySystemExit>(py) => {
                code.extract().unwrap_or(i32::from(!code.is_none()))
            }
            _ => {
                error.print(py);
                1
            }
        };
        for name in ["stdout", "stderr"] {
            let stream = py.import("sys").and_then(|sys| sys.getattr(name));
            let _ = stream.and_then(|stream| stream.call_method0("flush"));
        }
        let _ = py.import("os").and_then(|os| os.call_method1("_exit", (code,)));
        std::process::abort()
    }

    fn call_app(&self, environ: &Bound<'py, PyDict>) -> PyResult<()> {
        let iterable = self.app.call1((environ, &self.start_response))?;
        if is_forked() {
            return Ok(());
        }
        if let Ok(list) = iterable.cast_exact::<PyList>() {
            return self.send_blocks(list.iter());
        }
        if let Ok(tuple) = iterable.cast_exact::<PyTuple>() {
            return self.send_blocks(tuple.iter());
        }
        let sent = self.send_iterable(&iterable);
        if is_forked() {
            return sent.map(drop);
        }
        // Before close(): the client does not wait for that, and its failure is not the client's.
        if let Err(error) = &sent {
            self.report(error, Some(environ));
            self.exchange.get().fail(self.py);
        }
        self.exchange.get().end_body();
        let closed = self.close(&iterable, sent.is_ok_and(|is_all| is_all));
        if !is_forked()
            && let Err(error) = &closed
        {
            self.report(error, Some(environ));
            return Ok(());
        }
        closed
    }

    /// A list or tuple: all of the body is there, and there is no `close`.
    fn send_blocks(
        &self,
        mut blocks: impl ExactSizeIterator<Item = Bound<'py, PyAny>>,
    ) -> PyResult<()> {
        self.require_start()?;
        if blocks.len() == 1
            && let Some(block) = blocks.next()
        {
            return self.exchange.get().send_whole(std::slice::from_ref(bytes_block(&block)?));
        }
        let mut all = Vec::with_capacity(blocks.len());
        for block in blocks {
            all.push(bytes_block(&block)?.clone());
        }
        self.exchange.get().send_whole(&all)
    }

    /// Sends what an iterable yields, each block at once; returns whether it was used up.
    fn send_iterable(&self, iterable: &Bound<'py, PyAny>) -> PyResult<bool> {
        let exchange = self.exchange.get();
        if let Ok(wrapper) = iterable.cast_exact::<FileWrapper>()
            && exchange.is_started()
            && let Some(file) = wrapper.get().to_send(self.py)
        {
            exchange.send_file(file)?;
            return Ok(true);
        }
        if let Ok(bytes) = iterable.cast_exact::<PyBytes>() {
            // Iterating it would yield numbers; the mistake is common and the meaning clear.
            self.require_start()?;
            exchange.send_whole(std::slice::from_ref(bytes))?;
            return Ok(true);
        }
        for block in iterable.try_iter()? {
            if !exchange.send_block(&block?)? {
                return Ok(false);
            }
        }
        self.require_start()?;
        Ok(true)
    }

    fn require_start(&self) -> PyResult<()> {
        if self.exchange.get().is_started() {
            return Ok(());
        }
        Err(errors::never_started())
    }

    /// `close()` is called whatever happened (PEP 3333); on a generator that ended it does nothing.
    fn close(&self, iterable: &Bound<'py, PyAny>, is_used_up: bool) -> PyResult<()> {
        // SAFETY: the GIL is held and the object lives.
        if is_used_up && unsafe { ffi::PyGen_CheckExact(iterable.as_ptr()) } != 0 {
            return Ok(());
        }
        match iterable.getattr_opt(intern!(self.py, "close"))? {
            Some(close) => close.call0().map(drop),
            None => Ok(()),
        }
    }

    /// Has the server's log say what the app raised, and in which request.
    fn report(&self, error: &PyErr, environ: Option<&Bound<'py, PyDict>>) {
        let get = |key: &str| environ.and_then(|environ| environ.get_item(key).ok().flatten());
        let request =
            (error.value(self.py), get("REQUEST_METHOD"), get("RAW_URI"), get("HTTP_X_REQUEST_ID"));
        // No place is left to tell that the place to tell errors fails.
        let _ = self.report_error.call1(request);
    }
}

type Pair<'py> = (Bound<'py, Exchange>, Bound<'py, PyAny>);

/// What builds the environs of this thread.
pub fn new_environ(
    py: Python<'_>,
    static_environ: &StaticEnviron,
) -> PyResult<Rc<RefCell<Environ>>> {
    let errors = py.import("sys")?.getattr("stderr")?;
    let empty_input = Bound::new(py, Input::empty())?.into_any();
    Ok(Rc::new(RefCell::new(Environ::new(py, static_environ, &errors, &empty_input)?)))
}

/// An exchange for the calls of one app thread or greenlet, and its `start_response`.
pub fn new_exchange<'py>(
    py: Python<'py>,
    server: &Arc<Server>,
    number: usize,
    waiter: &Waiter,
) -> PyResult<Pair<'py>> {
    let exchange = Bound::new(py, Exchange::new(server.clone(), number, waiter.clone()))?;
    let start_response = exchange.getattr("start_response")?;
    Ok((exchange, start_response))
}
