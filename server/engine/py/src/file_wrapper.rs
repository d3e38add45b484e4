//! `wsgi.file_wrapper` (PEP 3333): an iterable over a file that the server may send by sendfile(2).

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};

use prefork_io::sys;
use prefork_io::unsent::FileOut;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

/// A file and how much of it to read at once.
#[pyclass(frozen, module = "prefork._engine", name = "FileWrapper")]
pub struct FileWrapper {
    filelike: Py<PyAny>,
    block_bytes: usize,
}

#[pymethods]
impl FileWrapper {
    #[new]
    #[pyo3(signature = (filelike, block_size=65536))]
    fn new(filelike: Py<PyAny>, block_size: usize) -> Self {
        Self { filelike, block_bytes: block_size }
    }

    /// The wrapped file.
    #[getter]
    fn filelike(&self, py: Python<'_>) -> Py<PyAny> {
        self.filelike.clone_ref(py)
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
    /// What sendfile(2) can send of it: from the file's position to its end, when it is a regular file that is read
    /// as it is stored. `None` for everything else, which is then read block by block.
    pub fn to_send(&self, py: Python<'_>) -> Option<FileOut> {
        let file = self.filelike.bind(py);
        // A decompressing or decoding file may have a descriptor too; only these read it as it is.
        let module = py.import("io").ok()?;
        let is_plain = ["BufferedReader", "BufferedRandom", "FileIO"]
            .iter()
            .any(|name| module.getattr(*name).is_ok_and(|class| file.get_type().is(&class)))
            || file.getattr("file").is_ok_and(|inner| is_temporary_file(&module, &inner));
        if !is_plain {
            return None;
        }
        let fd: i32 = file.call_method0("fileno").ok()?.extract().ok()?;
        let offset: i64 = file.call_method0("tell").ok()?.extract().ok()?;
        let own: OwnedFd = sys::duplicate(fd).ok()?;
        let file = File::from(own);
        let metadata = file.metadata().ok()?;
        let left = metadata.len().saturating_sub(u64::try_from(offset).ok()?);
        debug_assert!(file.as_raw_fd() >= 0);
        metadata.is_file().then(|| FileOut { fd: file.into(), offset, left })
    }
}

/// `tempfile` wraps the real file, and passes everything on.
fn is_temporary_file(io: &Bound<'_, PyModule>, inner: &Bound<'_, PyAny>) -> bool {
    ["BufferedReader", "BufferedRandom"]
        .iter()
        .any(|name| io.getattr(*name).is_ok_and(|class| inner.get_type().is(&class)))
}

/// One block of a body; the error names what it is instead of bytes.
pub fn bytes_block<'a, 'py>(block: &'a Bound<'py, PyAny>) -> PyResult<&'a Bound<'py, PyBytes>> {
    block.cast::<PyBytes>().map_err(|_| {
        let kind = block.get_type().name().map_or_else(|_| "?".into(), |name| name.to_string());
        PyTypeError::new_err(format!(
            "the application's iterable must yield bytes, not {kind}: encode text first"
        ))
    })
}
