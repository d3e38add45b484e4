//! Bytes from the network ↔ Python's strings, by Latin-1 as PEP 3333 has it.

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyString;

/// A new `str` with one character per byte.
pub fn latin1<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: the GIL is held. PyUnicode_New gives a fresh string whose 1-byte data has `len` bytes, not yet seen by
    // anybody; 127 promises ASCII, which was checked. Both calls give a new reference or null with an exception.
    unsafe {
        let object = if bytes.is_ascii() {
            let object = ffi::PyUnicode_New(bytes.len().cast_signed(), 127);
            // The empty string is a shared object that nobody may write to.
            if !object.is_null() && !bytes.is_empty() {
                std::ptr::copy_nonoverlapping(
                    bytes.as_ptr(),
                    ffi::PyUnicode_1BYTE_DATA(object),
                    bytes.len(),
                );
            }
            object
        } else {
            ffi::PyUnicode_DecodeLatin1(
                bytes.as_ptr().cast(),
                bytes.len().cast_signed(),
                std::ptr::null(),
            )
        };
        Bound::from_owned_ptr_or_err(py, object)
    }
}

/// Whether `text`, made by [`latin1`] of ASCII bytes, is the same as `bytes`.
pub fn is_ascii_text(text: &Bound<'_, PyString>, bytes: &[u8]) -> bool {
    let pointer = text.as_ptr();
    // SAFETY: the GIL is held; a string made by PyUnicode_New with 127 is ready and has one byte per character.
    unsafe {
        ffi::PyUnicode_GET_LENGTH(pointer) == bytes.len().cast_signed()
            && std::slice::from_raw_parts(ffi::PyUnicode_1BYTE_DATA(pointer), bytes.len()) == bytes
    }
}

/// The bytes of a `str` that is ASCII, which nearly all are; `None` for everything else.
///
/// # Safety
/// The GIL is held, `object` is alive, and the result is not used beyond that.
pub unsafe fn ascii_bytes<'a>(object: *mut ffi::PyObject) -> Option<&'a [u8]> {
    // SAFETY: by the caller's promise; a compact ASCII string is ready and has its bytes in one piece.
    unsafe {
        if ffi::PyUnicode_CheckExact(object) == 0 || ffi::PyUnicode_IS_COMPACT_ASCII(object) == 0 {
            return None;
        }
        let length = usize::try_from(ffi::PyUnicode_GET_LENGTH(object)).unwrap_or(0);
        Some(std::slice::from_raw_parts(ffi::PyUnicode_1BYTE_DATA(object), length))
    }
}

/// The Latin-1 bytes of a `str`, without copying; `what` names it in errors.
pub fn bytes_of<'a>(object: &'a Bound<'_, PyAny>, what: &str) -> PyResult<&'a [u8]> {
    if !object.is_instance_of::<PyString>() {
        let kind = object.get_type().name()?.to_string();
        return Err(PyTypeError::new_err(format!("{what} must be a str, not {kind}")));
    }
    // SAFETY: it is a str, which is immutable and outlives the borrow; kind 1 has one byte per character, and
    // before 3.12 a legacy string is made ready first.
    unsafe {
        let pointer = object.as_ptr();
        #[cfg(not(Py_3_12))]
        if ffi::PyUnicode_READY(pointer) != 0 {
            return Err(PyErr::fetch(object.py()));
        }
        if ffi::PyUnicode_KIND(pointer) == ffi::PyUnicode_1BYTE_KIND {
            let length = usize::try_from(ffi::PyUnicode_GET_LENGTH(pointer)).unwrap_or(0);
            return Ok(std::slice::from_raw_parts(ffi::PyUnicode_1BYTE_DATA(pointer), length));
        }
    }
    Err(PyValueError::new_err(format!(
        "{what} is {}, but PEP 3333 allows only characters up to U+00FF: encode others first",
        object.repr()?
    )))
}
