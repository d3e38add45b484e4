//! Calls in greenlets: the hub's turns, and the greenlet of a call. All of it belongs to the hub's thread.
//!
//! What switches greenlets is the app (and `wait`), never this module: between two calls of Python code one greenlet
//! runs, so nothing here is seen half done.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use prefork_io::forked::is_forked;
use prefork_io::reactor::Call;
use prefork_io::server::Server;
use pyo3::prelude::*;

use crate::environ::{Environ, StaticEnviron};
use crate::errors;
use crate::response::Exchange;
use crate::serving::{Serving, new_environ, new_exchange};
use crate::waiter::{Greenlets, Waiter};

/// See `_engine.pyi`.
#[pyclass(frozen, unsendable, module = "prefork._engine")]
pub struct Hub {
    server: Arc<Server>,
    app: Py<PyAny>,
    report_error: Py<PyAny>,
    environ: Rc<RefCell<Environ>>,
    greenlets: Arc<Greenlets>,
    waiter: Waiter,
    most: usize,
    places: RefCell<Places>,
}

/// What each greenlet works with; made when so many calls run at once for the first time.
#[derive(Default)]
struct Places {
    all: Vec<Place>,
    free: Vec<usize>,
}

struct Place {
    /// `None` while its call runs.
    exchange: Option<(Py<Exchange>, Py<PyAny>)>,
    /// Between the turn and the start of the greenlet.
    call: Option<Call>,
}

impl Hub {
    /// The hub of this thread.
    pub fn new(
        app: &Bound<'_, PyAny>,
        report_error: &Bound<'_, PyAny>,
        server: Arc<Server>,
        static_environ: &StaticEnviron,
        greenlets: Greenlets,
    ) -> PyResult<Self> {
        let py = app.py();
        let environ = new_environ(py, static_environ)?;
        let most = server.shared.settings.threads;
        let greenlets = Arc::new(greenlets);
        let hub = Self {
            server,
            app: app.clone().unbind(),
            report_error: report_error.clone().unbind(),
            environ,
            waiter: Waiter::Greenlet(greenlets.clone()),
            greenlets,
            most,
            places: RefCell::default(),
        };
        // The first one starts the watchdog, which also watches a hub without calls.
        let number = hub.add_place(py)?;
        hub.places.borrow_mut().free.push(number);
        Ok(hub)
    }

    fn room(&self) -> usize {
        let places = self.places.borrow();
        places.free.len() + self.most - places.all.len()
    }

    /// Gives `call` a place.
    fn seat(&self, py: Python<'_>, call: Call) -> PyResult<usize> {
        let free = self.places.borrow_mut().free.pop();
        let number = match free {
            Some(number) => number,
            None => self.add_place(py)?,
        };
        self.places.borrow_mut().all[number].call = Some(call);
        Ok(number)
    }

    fn add_place(&self, py: Python<'_>) -> PyResult<usize> {
        // The number stands for the thread's name in reports: see `Notice::Timeout`.
        let name = self.places.borrow().all.len() as u64;
        let Some(number) = self.server.join(name) else {
            return Err(errors::no_watchdog());
        };
        let (exchange, start_response) = new_exchange(py, &self.server, number, &self.waiter)?;
        let exchange = Some((exchange.unbind(), start_response.unbind()));
        self.places.borrow_mut().all.push(Place { exchange, call: None });
        Ok(number)
    }
}

#[pymethods]
impl Hub {
    #[getter]
    fn reactor_fd(&self) -> i32 {
        self.server.hub_fds().map_or(-1, |fds| fds.0)
    }

    #[getter]
    fn wake_fd(&self) -> i32 {
        self.server.hub_fds().map_or(-1, |fds| fds.1)
    }

    fn turn(slf: &Bound<'_, Self>) -> PyResult<Option<f64>> {
        let (py, this) = (slf.py(), slf.borrow());
        // The reactor is the parent's, and so is the lead.
        if is_forked() {
            return Ok(None);
        }
        let (room, mut calls) = (this.room(), Vec::new());
        // Once with the GIL: giving it away costs more than a turn.
        let mut turn = this.server.hub_turn(room, &mut calls);
        if turn.is_none() {
            let server = &this.server;
            turn = Some(py.detach(|| server.hub_turn_after_watchdog(room, &mut calls)));
        }
        let Some(turn) = turn else { return Ok(Some(0.0)) };
        if turn.is_over {
            return Ok(None);
        }
        for call in calls {
            let number = this.seat(py, call)?;
            let serve = slf.getattr(pyo3::intern!(py, "serve"))?;
            this.greenlets.spawn.call1(py, (serve, number))?;
        }
        Ok(Some(turn.until_due.as_secs_f64()))
    }

    /// Be the greenlet of the call in place `number`.
    fn serve(&self, py: Python<'_>, number: usize) -> PyResult<()> {
        let seated = {
            let mut places = self.places.borrow_mut();
            let place = places.all.get_mut(number);
            place.and_then(|place| Some((place.call.take()?, place.exchange.take()?)))
        };
        let Some((call, (exchange, start_response))) = seated else {
            return Err(errors::no_call_in_place(number));
        };
        let mut serving = Serving {
            py,
            server: self.server.clone(),
            number,
            app: self.app.bind(py).clone(),
            report_error: self.report_error.bind(py).clone(),
            environ: self.environ.clone(),
            waiter: self.waiter.clone(),
            exchange: exchange.into_bound(py),
            start_response: start_response.into_bound(py),
        };
        let result = serving.serve(call);
        let mut places = self.places.borrow_mut();
        places.all[number].exchange =
            Some((serving.exchange.unbind(), serving.start_response.unbind()));
        places.free.push(number);
        result
    }

    /// Whether the call in place `number` is over its time.
    fn is_overdue(&self, number: usize) -> bool {
        number < self.places.borrow().all.len() && self.server.thread(number).is_overdue()
    }
}
