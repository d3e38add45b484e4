//! Every exception the engine raises: which class, and a sentence that says what is wrong and what would be right.
//!
//! PEP 3333 leaves the classes to the server. `AssertionError` is for an app that breaks the order of calls, `TypeError`
//! and `ValueError` for what it passes, `OSError` and its subclasses for a request body that cannot be read, and
//! `RuntimeError` for a caller inside prefork.

use prefork_core::Reject;
use prefork_core::response::InvalidResponse;
use pyo3::exceptions::{
    PyAssertionError, PyConnectionResetError, PyOSError, PyRuntimeError, PyTimeoutError,
    PyTypeError, PyValueError,
};
use pyo3::prelude::*;

/// `callable` was used after its call had ended.
pub fn call_is_over(callable: &str) -> PyErr {
    PyAssertionError::new_err(format!("{callable} was called after the call was over"))
}

/// `start_response` was called twice.
pub fn started_twice() -> PyErr {
    PyAssertionError::new_err(
        "start_response was called again without exc_info, which PEP 3333 forbids",
    )
}

/// A body before its head.
pub fn body_before_start() -> PyErr {
    PyAssertionError::new_err("the application gave a body before it called start_response")
}

/// No head at all.
pub fn never_started() -> PyErr {
    PyAssertionError::new_err("the application returned without calling start_response")
}

/// What the app wants to send is not HTTP; `what` is the status or name at fault.
pub fn invalid_response(invalid: InvalidResponse, what: &[u8]) -> PyErr {
    PyValueError::new_err(format!("{invalid}; it is '{}'", what.escape_ascii()))
}

/// As [`invalid_response`], for the value of the field `name`.
pub fn invalid_field(invalid: InvalidResponse, name: &[u8], value: &[u8]) -> PyErr {
    PyValueError::new_err(format!(
        "{invalid}; {} is '{}'",
        name.escape_ascii(),
        value.escape_ascii()
    ))
}

/// The headers are not a list of pairs.
pub fn not_a_header_list() -> PyErr {
    PyTypeError::new_err("headers must be a list of (name, value) tuples")
}

/// One header is not a pair.
pub fn not_a_header(pair: &Bound<'_, PyAny>) -> PyErr {
    PyTypeError::new_err(format!("a header must be a (name, value) tuple, not {}", shown(pair)))
}

/// `what` is not a string.
pub fn not_a_str(what: &str, object: &Bound<'_, PyAny>) -> PyErr {
    PyTypeError::new_err(format!("{what} must be a str, not {}", kind_of(object)))
}

/// `what` has a character that cannot be sent.
pub fn not_latin1(what: &str, text: &Bound<'_, PyAny>) -> PyErr {
    PyValueError::new_err(format!(
        "{what} is {}, but PEP 3333 allows only characters up to U+00FF: encode others first",
        shown(text)
    ))
}

/// A block of a body is not bytes.
pub fn not_bytes(block: &Bound<'_, PyAny>) -> PyErr {
    PyTypeError::new_err(format!(
        "the application's iterable must yield bytes, not {}: encode text first",
        kind_of(block)
    ))
}

/// The app is not callable.
pub fn not_callable(app: &Bound<'_, PyAny>) -> PyErr {
    PyValueError::new_err(format!("app must be callable, {} is not", kind_of(app)))
}

/// Why the rest of a request body cannot be read.
#[derive(Clone, Copy, Debug)]
pub enum BodyFailure {
    /// The client left in the middle of it.
    Truncated,
    /// The client paused for too long.
    Slow,
    /// It is not well-formed, or too large.
    Rejected(Reject),
    /// Its file cannot be read.
    Spool,
    /// The call has ended.
    CallOver,
    /// It can be later: a greenlet has to wait, without any lock, and then try again.
    Pending,
}

impl BodyFailure {
    /// The status to answer when the app failed because its body did.
    pub fn status(self) -> u16 {
        match self {
            Self::Slow => 408,
            Self::Rejected(reject) => reject.status(),
            Self::Truncated | Self::Spool | Self::CallOver | Self::Pending => 400,
        }
    }
}

impl From<BodyFailure> for PyErr {
    fn from(failure: BodyFailure) -> Self {
        match failure {
            BodyFailure::Truncated => {
                PyConnectionResetError::new_err("the client ended the connection before its body")
            }
            BodyFailure::Slow => {
                PyTimeoutError::new_err("the client sent nothing of its body for too long")
            }
            BodyFailure::Rejected(reject) => {
                PyOSError::new_err(format!("the request body is refused: {reject}"))
            }
            BodyFailure::Spool => {
                PyOSError::new_err("the request body cannot be read from its spool file")
            }
            BodyFailure::CallOver => {
                PyOSError::new_err("wsgi.input was read after the call was over")
            }
            BodyFailure::Pending => PyOSError::new_err("the request body has not come yet"),
        }
    }
}

/// `settings` has no such key.
pub fn missing_setting(key: &str) -> PyErr {
    PyValueError::new_err(format!("settings lack {key}; see _engine.pyi for all of them"))
}

/// A setting of another type.
pub fn mistyped_setting(key: &str, value: &Bound<'_, PyAny>, error: &PyErr) -> PyErr {
    PyValueError::new_err(format!("settings: {key} is {value}: {error}"))
}

/// A setting outside its range; `fault` says what it is, and what is allowed.
pub fn invalid_setting(fault: &str) -> PyErr {
    PyValueError::new_err(format!("settings: {fault}"))
}

/// A drain mode there is not.
pub fn unknown_mode(mode: &str) -> PyErr {
    PyValueError::new_err(format!("mode is '{mode}'; use handover or close"))
}

/// More threads than there is room for, or no watchdog for them.
pub fn too_many_threads() -> PyErr {
    PyRuntimeError::new_err(
        "serve() was called by more threads than settings['threads'], or no watchdog thread could be started",
    )
}

/// The hub has no watchdog.
pub fn no_watchdog() -> PyErr {
    PyRuntimeError::new_err("no watchdog thread could be started")
}

/// A hub for an engine with threads.
pub fn not_for_greenlets() -> PyErr {
    PyRuntimeError::new_err("settings['greenlets'] is False; use serve()")
}

/// A greenlet without a request.
pub fn no_call_in_place(number: usize) -> PyErr {
    PyRuntimeError::new_err(format!("place {number} has no call"))
}

fn kind_of(object: &Bound<'_, PyAny>) -> String {
    object.get_type().name().map_or_else(|_| "?".into(), |name| name.to_string())
}

fn shown(object: &Bound<'_, PyAny>) -> String {
    object.repr().map_or_else(|_| "?".into(), |repr| repr.to_string())
}
