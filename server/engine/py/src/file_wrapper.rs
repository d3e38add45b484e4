//! `wsgi.file_wrapper` (PEP 3333): an iterable over a file that the server may send by sendfile(2).

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use prefork_io::out_queue::FileSegment;
use prefork_io::sys;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::errors;

/// A file and how much of it to read at once.
#[pyclass(frozen, module = "prefork._engine", name = "FileWrapper")]
pub struct FileWrapper {
    filelike: Py<PyAny>,
    /// As `read` takes it: -1 is all.
    block_bytes: isize,
}

const BLOCK_BYTES: isize = 64 * 1024;

#[pymethods]
impl FileWrapper {
    #[new]
    #[pyo3(signature = (filelike, blksize=None))] // named as in gunicorn and wsgiref
    fn new(filelike: Py<PyAny>, blksize: Option<isize>) -> Self {
        Self { filelike, block_bytes: blksize.unwrap_or(BLOCK_BYTES) }
    }

    /// The wrapped file.
    #[getter]
    fn filelike(&self, py: Python<'_>) -> Py<PyAny> {
        self.filelike.clone_ref(py)
    }

    /// How much is read at once.
    #[getter]
    const fn blksize(&self) -> isize {
        self.block_bytes
    }

    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let block = self.filelike.bind(py).call_method1("read", (self.block_bytes,))?;
        Ok(if block.len()? == 0 { None } else { Some(block) })
    }

    /// Close the file, when it can be closed.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        if let Some(close) = self.filelike.bind(py).getattr_opt("close")? {
            close.call0()?;
        }
        Ok(())
    }
}

impl FileWrapper {
    /// What sendfile(2) can send of it: from the file's position to its end, when it is a regular file and the object's
    /// own `read` would give the same bytes. `None` for everything else, which is then read block by block.
    pub fn to_send(&self, py: Python<'_>) -> Option<FileSegment> {
        let file = plain_file(self.filelike.bind(py))?;
        let fd: i32 = file.call_method0("fileno").ok()?.extract().ok()?;
        let offset: i64 = file.call_method0("tell").ok()?.extract().ok()?;
        let file = File::from(sys::duplicate(fd).ok()?);
        let metadata = file.metadata().ok()?;
        let left = metadata.len().saturating_sub(u64::try_from(offset).ok()?);
        // What is made as it is read, as in /proc and /sys, has any size but its own: is there a last byte?
        let is_stored = metadata.is_file()
            && left > 0
            && matches!(file.read_at(&mut [0], metadata.len() - 1), Ok(1));
        sys::read_no_further(file.as_raw_fd());
        is_stored.then(|| FileSegment { fd: file.into(), offset, left })
    }
}

/// The file object of `io` that reads a file as it is stored: the wrapped one, or the one in a `tempfile` wrapper. Only
/// exact types: a subclass, an object with a `read` of its own or a buffer over something else may give other bytes
/// than the descriptor.
fn plain_file<'py>(wrapped: &Bound<'py, PyAny>) -> Option<Bound<'py, PyAny>> {
    let py = wrapped.py();
    let io = py.import("io").ok()?;
    let is = |object: &Bound<'_, PyAny>, name: &str| {
        io.getattr(name).is_ok_and(|class| object.get_type().is(&class)) && !has_own_read(object)
    };
    let is_buffered =
        |object: &Bound<'_, PyAny>| is(object, "BufferedReader") || is(object, "BufferedRandom");
    let file = if is_temporary_wrapper(wrapped) && !has_own_read(wrapped) {
        wrapped.getattr("file").ok()?
    } else {
        wrapped.clone()
    };
    if is(&file, "FileIO") {
        return is_true(&file, "readable").then_some(file);
    }
    if !is_buffered(&file) || !is(&file.getattr("raw").ok()?, "FileIO") {
        return None;
    }
    if is(&file, "BufferedRandom") {
        file.call_method0("flush").ok()?; // what was written and is not in the file yet
    }
    is_true(&file, "readable").then_some(file)
}

fn is_true(file: &Bound<'_, PyAny>, method: &str) -> bool {
    file.call_method0(method).and_then(|answer| answer.extract()).unwrap_or(false)
}

/// The object was given its own `read`, or another method that reading comes to.
fn has_own_read(object: &Bound<'_, PyAny>) -> bool {
    let Ok(own) = object.getattr("__dict__") else { return false };
    ["read", "readinto", "readall"].iter().any(|name| own.contains(name).unwrap_or(true))
}

/// `tempfile` wraps the real file, and passes everything on.
fn is_temporary_wrapper(object: &Bound<'_, PyAny>) -> bool {
    let known = object.py().import("sys").and_then(|sys| sys.getattr("modules"));
    known
        .and_then(|modules| modules.get_item("tempfile"))
        .and_then(|module| module.getattr("_TemporaryFileWrapper"))
        .is_ok_and(|class| object.get_type().is(&class))
}

/// One block of a body; the error names what it is instead of bytes.
pub fn bytes_block<'a, 'py>(block: &'a Bound<'py, PyAny>) -> PyResult<&'a Bound<'py, PyBytes>> {
    block.cast::<PyBytes>().map_err(|_| errors::not_bytes(block))
}
