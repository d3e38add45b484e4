//! Bytes from the network ↔ Python's strings, by Latin-1 as PEP 3333 has it.

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::errors;

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

/// The Latin-1 bytes of a `str`, a subclass too as no code of it runs; `None` for anything else, or with characters above U+00FF.
///
/// # Safety
/// The GIL is held, `object` is alive, and the result is not used beyond that.
pub unsafe fn latin1_bytes<'a>(object: *mut ffi::PyObject) -> Option<&'a [u8]> {
    // SAFETY: by the caller's promise; kind 1 has one byte per character, and before 3.12 a legacy string is made
    // ready first.
    unsafe {
        if ffi::PyUnicode_Check(object) == 0 {
            return None;
        }
        #[cfg(not(Py_3_12))]
        if ffi::PyUnicode_READY(object) != 0 {
            ffi::PyErr_Clear();
            return None;
        }
        if ffi::PyUnicode_KIND(object) != ffi::PyUnicode_1BYTE_KIND {
            return None;
        }
        let length = usize::try_from(ffi::PyUnicode_GET_LENGTH(object)).unwrap_or(0);
        Some(std::slice::from_raw_parts(ffi::PyUnicode_1BYTE_DATA(object), length))
    }
}

/// The Latin-1 bytes of a `str`, without copying; `what` names it in errors.
pub fn bytes_of<'a>(object: &'a Bound<'_, PyAny>, what: &str) -> PyResult<&'a [u8]> {
    let Ok(text) = object.cast::<PyString>() else {
        return Err(errors::not_a_str(what, object));
    };
    // SAFETY: the GIL is held and the string outlives the borrow.
    unsafe { latin1_bytes(text.as_ptr()) }.ok_or_else(|| errors::not_latin1(what, object))
}
