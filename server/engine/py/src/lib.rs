//! The module `prefork._engine`: conversions between the engine and Python, nothing else.
//!
//! ```text
//! engine (class Engine) → serving (one app thread) → environ, input, response (start_response, body)
//!                       → hub (greenlets) → serving
//! ```

mod engine;
mod environ;
mod errors;
mod file_wrapper;
mod fork;
mod hub;
mod immortal;
mod input;
mod layout;
mod response;
mod serving;
mod text;
mod waiter;

use pyo3::prelude::*;

/// The engine of one worker process; see `_engine.pyi`.
#[pymodule(gil_used = true)]
mod _engine {
    use pyo3::prelude::*;

    #[pymodule_export]
    use crate::engine::Engine;
    #[pymodule_export]
    use crate::hub::Hub;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("LAYOUT", crate::layout::layout(module.py())?)?;
        module.add_function(wrap_pyfunction!(crate::immortal::call_finalizer, module)?)?;
        module.add_function(wrap_pyfunction!(crate::immortal::make_immortal, module)?)?;
        module.add_function(wrap_pyfunction!(crate::fork::fork_twice, module)?)?;
        module.add_function(wrap_pyfunction!(super::set_child_subreaper, module)?)?;
        module.add_function(wrap_pyfunction!(super::end_with, module)?)?;
        module.add_function(wrap_pyfunction!(super::refuse_handshakes, module)?)?;
        module.add_function(wrap_pyfunction!(super::exemplar_check, module)?)?;
        module.add_function(wrap_pyfunction!(super::listen_queue, module)?)
    }
}

/// End this process with the one at the other end of `channel`, `within_s` later.
#[pyfunction]
#[pyo3(signature = (*, channel, listeners, within_s))]
fn end_with(channel: i32, listeners: Vec<i32>, within_s: f64) -> PyResult<()> {
    let Ok(within) = std::time::Duration::try_from_secs_f64(within_s) else {
        return Err(errors::invalid_setting(&format!(
            "within_s is {within_s}; use seconds, 0 or more"
        )));
    };
    Ok(prefork_io::owner::outlive_no_longer(channel, listeners, within)?)
}

/// Make this process the parent of its orphaned grandchildren.
#[pyfunction]
fn set_child_subreaper() -> PyResult<()> {
    Ok(prefork_io::sys::set_child_subreaper()?)
}

/// Have the kernel drop new handshakes on a listening TCP socket.
#[pyfunction]
fn refuse_handshakes(fd: i32) -> PyResult<()> {
    Ok(prefork_io::sys::refuse_handshakes(fd)?)
}

/// Return the last cell of an exemplar, from the others.
#[pyfunction]
fn exemplar_check(trace_high: u64, trace_low: u64, value_us: u64, time_us: u64) -> u64 {
    prefork_io::stats::exemplars::check([trace_high, trace_low, value_us, time_us])
}

/// Return (depth, limit) of a listening socket's accept queue.
#[pyfunction]
fn listen_queue(fd: i32) -> PyResult<(u32, u32)> {
    Ok(prefork_io::sys::listen_queue(fd)?)
}
