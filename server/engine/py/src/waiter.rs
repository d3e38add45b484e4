//! How a call waits for its client: a thread blocks, a greenlet lets others run.

use std::io;
use std::sync::Arc;

use prefork_io::server::Wait;
use prefork_io::sys::{self, Direction};
use pyo3::prelude::*;

/// What is asked of the library whose greenlets these are.
pub struct Greenlets {
    /// `spawn(function, number)` starts one that calls `function(number)`.
    pub spawn: Py<PyAny>,
    /// `wait(fd, is_write, seconds)` returns false when the socket is not ready by then.
    pub wait: Py<PyAny>,
    /// `park()` is called in a forked child by a call that is over: returns only if that was its to end the child.
    pub park: Py<PyAny>,
}

/// See the head of this file.
#[derive(Clone)]
pub enum Waiter {
    /// Blocks its thread, without the GIL.
    Thread,
    /// Lets others run.
    Greenlet(Arc<Greenlets>),
}

impl Waiter {
    /// Runs `action`, which may wait by the function it is given.
    ///
    /// # Errors
    /// What a greenlet gets raised while it waits.
    pub fn run<T: Send>(
        &self,
        py: Python<'_>,
        action: impl FnOnce(Wait<'_>) -> T + Send,
    ) -> PyResult<T> {
        let Self::Greenlet(greenlets) = self else {
            return Ok(py.detach(|| action(&mut sys::wait_for)));
        };
        let mut raised = None;
        let result = action(&mut |fd, direction, most| {
            let is_write = matches!(direction, Direction::Write);
            let ready = greenlets
                .wait
                .call1(py, (fd, is_write, most.as_secs_f64()))
                .and_then(|ready| ready.extract::<bool>(py));
            ready.map_err(|error| {
                raised = Some(error);
                io::Error::from(io::ErrorKind::Interrupted)
            })
        });
        raised.map_or(Ok(result), Err)
    }
    /// In a forked child: a copy of a greenlet that did not fork ends here, and the child goes on without it.
    pub fn park(&self, py: Python<'_>) {
        if let Self::Greenlet(greenlets) = self {
            // It comes back only by an error, or where the child is to end.
            let _ = greenlets.park.call0(py);
        }
    }
}
