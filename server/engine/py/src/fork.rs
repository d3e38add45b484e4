//! Forks a process that is not this one's child, so that Python's hooks see a single fork.

use pyo3::ffi;
use pyo3::prelude::*;

/// See `_engine.pyi`.
#[pyfunction]
pub fn fork_twice(_py: Python<'_>) -> PyResult<i32> {
    // SAFETY: the GIL is held, and the hooks come in the order of `os.fork`, with nothing between them but the forks. The
    // new process has this thread alone, which goes on to use the interpreter only after its own hook.
    unsafe {
        ffi::PyOS_BeforeFork();
        let forked = prefork_io::sys::fork_twice();
        match forked {
            Ok(0) => ffi::PyOS_AfterFork_Child(),
            _ => ffi::PyOS_AfterFork_Parent(),
        }
        Ok(forked?)
    }
}
