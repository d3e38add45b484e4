//! The class `Engine`: reads settings, starts and stops the server.

use std::sync::Arc;
use std::time::Duration;

use prefork_core::Limits;
use prefork_core::forwarded::Trusted;
use prefork_io::access_line::{Field, Format};
use prefork_io::handover::HandoverSockets;
use prefork_io::pace::Patience;
use prefork_io::reactor::Order;
use prefork_io::server::{Notice, Server};
use prefork_io::settings::Settings;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};

use crate::environ::StaticEnviron;
use crate::errors;
use crate::hub::Hub;
use crate::serving::Serving;
use crate::text::latin1;
use crate::waiter::Greenlets;

/// See `_engine.pyi`.
#[pyclass(frozen, module = "prefork._engine")]
pub struct Engine {
    app: Py<PyAny>,
    report_error: Py<PyAny>,
    server: Arc<Server>,
    static_environ: StaticEnviron,
}

/// The settings as they come from Python.
struct RawSettings<'a, 'py>(&'a Bound<'py, PyAny>);

impl<'py> RawSettings<'_, 'py> {
    fn get<T>(&self, key: &str) -> PyResult<T>
    where
        T: for<'a> FromPyObject<'a, 'py>,
        for<'a> <T as FromPyObject<'a, 'py>>::Error: Into<PyErr>,
    {
        let value = self.0.get_item(key).map_err(|_| errors::missing_setting(key))?;
        value.extract().map_err(|error: <T as FromPyObject<'_, 'py>>::Error| {
            errors::mistyped_setting(key, &value, &error.into())
        })
    }

    fn seconds(&self, key: &str) -> PyResult<u64> {
        let seconds: f64 = self.get(key)?;
        match Duration::try_from_secs_f64(seconds) {
            Ok(duration) => {
                Ok(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX / 2).min(u64::MAX / 2))
            }
            Err(_) => {
                Err(errors::invalid_setting(&format!("{key} is {seconds}; use seconds, 0 or more")))
            }
        }
    }
}

/// `(style, literals and fields, end)`.
type AccessLog = (String, Vec<(String, String)>, String);

fn read_access_format(
    given: &RawSettings<'_, '_>,
    hides_queries: bool,
) -> PyResult<Option<Format>> {
    let Some((style, named, end)) = given.get::<Option<AccessLog>>("access_log")? else {
        return Ok(None);
    };
    if !matches!(style.as_str(), "json" | "text") {
        return Err(errors::invalid_setting(&format!(
            "access_log has the style '{style}'; use json or text"
        )));
    }
    let mut parts = Vec::with_capacity(named.len());
    for (literal, name) in named {
        let field = Field::of(&name).ok_or_else(|| {
            errors::invalid_setting(&format!("access_log has the field '{name}', which is not one"))
        })?;
        parts.push((literal, field));
    }
    Ok(Some(Format::new(style == "json", hides_queries, &parts, &end)))
}

fn read_settings(given: &RawSettings<'_, '_>) -> PyResult<(Settings, StaticEnviron)> {
    let threads: usize = given.get("threads")?;
    if threads == 0 {
        return Err(errors::invalid_setting("threads is 0; use 1 or more"));
    }
    let forwarded: Vec<String> = given.get("forwarded_allow_ips")?;
    let trusted = Trusted::parse(forwarded.iter().map(String::as_str)).map_err(|entry| {
        errors::invalid_setting(&format!(
            "forwarded_allow_ips has '{entry}'; use addresses, networks such as 10.0.0.0/8, or *"
        ))
    })?;
    let hides_queries = given.get("hide_query_strings")?;
    let server_software: String = given.get("server_software")?;
    let settings = Settings {
        threads,
        keep_alive_us: given.seconds("keep_alive_s")?,
        request_timeout_us: given.seconds("request_timeout_s")?,
        header_timeout_us: given.seconds("header_timeout_s")?,
        body_patience: Patience {
            pause_us: given.seconds("body_timeout_s")?,
            bytes_per_s: given.get("min_body_rate")?,
        },
        response_patience: Patience {
            pause_us: given.seconds("write_timeout_s")?,
            bytes_per_s: given.get("min_response_rate")?,
        },
        is_streaming: given.get("stream_request_bodies")?,
        buffer_bytes: given.get("buffer_memory")?,
        spool_directory: given.get("spool_dir")?,
        spool_bytes: given.get("spool_size")?,
        limits: Limits {
            request_line: given.get("limit_request_line")?,
            request_fields: given.get("limit_request_fields")?,
            request_field_size: given.get("limit_request_field_size")?,
            head_bytes: given.get("limit_head_bytes")?,
            request_body: given.get("max_request_body")?,
        },
        max_requests: given.get("max_requests")?,
        max_connections: given.get("max_connections")?,
        trusted,
        server: server_software.clone().into_bytes(),
        access_format: read_access_format(given, hides_queries)?.map(Arc::new),
        access_log_lock_fd: given.get("access_log_lock_fd")?,
        hides_queries,
        has_hub: given.get("greenlets")?,
    };
    let static_environ = StaticEnviron {
        script_name: given.get::<String>("script_name")?.trim_end_matches('/').to_owned(),
        server_software,
        is_multithread: threads > 1,
        is_multiprocess: given.get("multiprocess")?,
    };
    Ok((settings, static_environ))
}

#[pymethods]
impl Engine {
    #[new]
    #[allow(clippy::needless_pass_by_value)] // what Python's values are converted to
    #[allow(clippy::too_many_arguments)] // keywords, in Python
    #[pyo3(signature = (app, *, listeners, settings, stats_fd, slot, report_error, access_log_fd=-1, handover=None))]
    fn new(
        app: Bound<'_, PyAny>,
        listeners: Vec<i32>,
        settings: &Bound<'_, PyAny>,
        stats_fd: i32,
        slot: usize,
        report_error: Py<PyAny>,
        access_log_fd: i32,
        handover: Option<(i32, i32)>,
    ) -> PyResult<Self> {
        if !app.is_callable() {
            return Err(errors::not_callable(&app));
        }
        let (settings, static_environ) = read_settings(&RawSettings(settings))?;
        let handover = handover.map(|(send, receive)| HandoverSockets { send, receive });
        let server = Server::new(settings, &listeners, stats_fd, slot, access_log_fd, handover)?;
        Ok(Self { app: app.unbind(), report_error, server, static_environ })
    }

    #[getter]
    fn notify_fd(&self) -> i32 {
        self.server.notify_fd()
    }

    fn serve(&self, py: Python<'_>) -> PyResult<()> {
        let (app, report_error) = (self.app.bind(py).clone(), self.report_error.bind(py).clone());
        match Serving::new(self.server.clone(), app, report_error, &self.static_environ)? {
            Some(serving) => serving.run(),
            None => Err(errors::too_many_threads()),
        }
    }

    #[pyo3(signature = (*, spawn, wait, park))]
    fn hub(
        &self,
        py: Python<'_>,
        spawn: Py<PyAny>,
        wait: Py<PyAny>,
        park: Py<PyAny>,
    ) -> PyResult<Hub> {
        if !self.server.has_hub() {
            return Err(errors::not_for_greenlets());
        }
        let greenlets = Greenlets { spawn, wait, park };
        let (app, report_error) = (self.app.bind(py), self.report_error.bind(py));
        Hub::new(app, report_error, self.server.clone(), &self.static_environ, greenlets)
    }

    #[pyo3(signature = (*, mode))]
    fn drain(&self, mode: &str) -> PyResult<()> {
        let order = match mode {
            "handover" => Order::HandOver,
            "close" => Order::Close,
            _ => return Err(errors::unknown_mode(mode)),
        };
        self.server.give(order);
        Ok(())
    }

    fn stop(&self) {
        self.server.give(Order::Stop);
    }

    fn events<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let events = PyList::empty(py);
        for notice in self.server.notices() {
            let event = match notice {
                Notice::Timeout { thread_ident, method, target, elapsed_us } => (
                    "timeout",
                    thread_ident,
                    latin1(py, &method)?,
                    latin1(py, &target)?,
                    elapsed_us,
                )
                    .into_pyobject(py)?,
                Notice::HubBlocked { elapsed_us } => {
                    ("hub_blocked", elapsed_us).into_pyobject(py)?
                }
                Notice::SpoolFailed { why } => ("spool_failed", why).into_pyobject(py)?,
                Notice::LeftOut { name } => ("left_out", latin1(py, &name)?).into_pyobject(py)?,
                Notice::LogLost { lines } => ("log_lost", lines).into_pyobject(py)?,
                Notice::MaxRequests => PyTuple::new(py, ["max_requests"])?,
                Notice::Shut => PyTuple::new(py, ["shut"])?,
                Notice::Drained => PyTuple::new(py, ["drained"])?,
            };
            events.append(event)?;
        }
        Ok(events)
    }

    fn is_idle(&self) -> bool {
        self.server.is_idle()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.server.give(Order::Stop);
    }
}
