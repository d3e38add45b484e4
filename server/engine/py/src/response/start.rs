//! `start_response` and `write` of PEP 3333: what the app passes, as the engine takes it.

use prefork_core::response::{HeadWriter, InvalidResponse, RequestInfo, ResponseHead};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyString, PyTuple};

use super::{Exchange, Progress, State};
use crate::errors;
use crate::file_wrapper::bytes_block;
use crate::text::{bytes_of, latin1_bytes};

impl Exchange {
    /// `start_response` for the usual: a list of pairs of strings, all of them right. False when it is not
    /// that; then nothing has happened.
    fn start_usual(&self, status: &Bound<'_, PyAny>, headers: &Bound<'_, PyAny>) -> bool {
        let mut state = self.lock();
        let state = &mut *state;
        let Some(answering) = self.answering(state) else { return false };
        state.progress = Progress::Silent;
        state.out.clear();
        // SAFETY: the GIL is held and no Python code runs here, so the list, its tuples and their strings stay.
        let reply = unsafe {
            let State { out, heads, .. } = state;
            write_usual(out, heads, answering, status.as_ptr(), headers.as_ptr())
        };
        let Some(reply) = reply else {
            state.out.clear();
            return false;
        };
        state.status = reply.status();
        state.progress = Progress::Started(reply);
        true
    }

    pub(super) fn start(&self, status: &[u8], fields: &[(&[u8], &[u8])]) -> PyResult<()> {
        let mut state = self.lock();
        let state = &mut *state;
        let Some(answering) = self.answering(state) else {
            return Err(errors::call_is_over("start_response"));
        };
        state.progress = Progress::Silent;
        state.out.clear();
        let mut reply = ResponseHead::start(&mut state.out, answering, status)
            .map_err(|bad| errors::invalid_response(bad, status))?;
        for (name, value) in fields {
            let written = reply.field(&mut state.out, name, value);
            if written == Err(InvalidResponse::HopByHop) {
                // As gunicorn does; framing and connection stay the server's.
                self.server.note_left_out(name);
                continue;
            }
            written.map_err(|bad| match bad {
                InvalidResponse::FieldName => errors::invalid_response(bad, name),
                _ => errors::invalid_field(bad, name, value),
            })?;
        }
        state.status = reply.status();
        state.progress = Progress::Started(reply);
        Ok(())
    }
}

/// See [`Exchange::start_usual`].
///
/// # Safety
/// The GIL is held and no Python code runs meanwhile; both objects are alive.
unsafe fn write_usual(
    out: &mut Vec<u8>,
    heads: &mut HeadWriter,
    answering: RequestInfo,
    status: *mut ffi::PyObject,
    headers: *mut ffi::PyObject,
) -> Option<ResponseHead> {
    // SAFETY: by the caller's promise all objects live; types are checked before they are read, indices are below the
    // length, as no code runs that could change it.
    unsafe {
        if ffi::PyList_CheckExact(headers) == 0 {
            return None;
        }
        let status = latin1_bytes(status)?;
        let fields =
            (0..ffi::PyList_GET_SIZE(headers)).map(|at| pair(ffi::PyList_GET_ITEM(headers, at)));
        heads.write(out, answering, status, fields)
    }
}

/// Name and value of a field; `None` where they are no tuple of two strings.
///
/// # Safety
/// As [`write_usual`]; the bytes are not used beyond that.
unsafe fn pair<'a>(pair: *mut ffi::PyObject) -> Option<(&'a [u8], &'a [u8])> {
    // SAFETY: by the caller's promise the object lives; its type and size are checked before it is read.
    unsafe {
        if ffi::PyTuple_CheckExact(pair) == 0 || ffi::PyTuple_GET_SIZE(pair) != 2 {
            return None;
        }
        let name = latin1_bytes(ffi::PyTuple_GET_ITEM(pair, 0))?;
        Some((name, latin1_bytes(ffi::PyTuple_GET_ITEM(pair, 1))?))
    }
}

#[pymethods]
impl Exchange {
    /// `start_response(status, headers, exc_info=None)` of PEP 3333.
    #[pyo3(signature = (status, headers, exc_info=None))]
    fn start_response<'py>(
        slf: &Bound<'py, Self>,
        status: &Bound<'py, PyAny>,
        headers: &Bound<'py, PyAny>,
        exc_info: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let this = slf.get();
        let exc_info = exc_info.filter(|info| info.is_truthy().unwrap_or(false));
        if let Some(info) = exc_info
            && this.lock().is_sent
        {
            return Err(reraised(info)?);
        }
        if exc_info.is_none() && this.is_started() {
            return Err(errors::started_twice());
        }
        if this.start_usual(status, headers) {
            return Self::write_method(slf);
        }
        let status_bytes = bytes_of(status, "status")?;
        let headers = fast_sequence(headers)?;
        let mut pairs = Vec::with_capacity(headers.len());
        for pair in &headers {
            pairs.push(fast_pair(&pair)?);
        }
        let mut fields = Vec::with_capacity(pairs.len());
        for (name, value) in &pairs {
            fields.push((bytes_of(name, "a header name")?, bytes_of(value, "a header value")?));
        }
        this.start(status_bytes, &fields)?;
        Self::write_method(slf)
    }

    /// The `write(data)` callable of PEP 3333.
    #[pyo3(signature = (data, /))]
    fn write(&self, data: &Bound<'_, PyAny>) -> PyResult<()> {
        let block = bytes_block(data)?;
        if self.lock().held.is_none() {
            return Err(errors::call_is_over("write"));
        }
        self.begin_body(&mut self.lock(), None)?;
        self.add_block(block).map(drop)
    }
}

impl Exchange {
    /// The bound method `write`, made once.
    fn write_method<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        if let Some(write) = &slf.get().lock().write {
            return Ok(write.bind(py).clone());
        }
        let write = slf.getattr(pyo3::intern!(py, "write"))?;
        slf.get().lock().write = Some(write.clone().unbind());
        Ok(write)
    }
}

/// `raise exc_info[1].with_traceback(exc_info[2])`
fn reraised(exc_info: &Bound<'_, PyAny>) -> PyResult<PyErr> {
    let error = exc_info.get_item(1)?;
    let traceback = exc_info.get_item(2)?;
    Ok(PyErr::from_value(error.call_method1("with_traceback", (traceback,))?))
}

fn fast_sequence<'py>(object: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyList>> {
    if let Ok(list) = object.cast_exact::<PyList>() {
        return Ok(list.clone());
    }
    if object.is_instance_of::<PyString>() {
        return Err(errors::not_a_header_list());
    }
    // SAFETY: the GIL is held, the object lives; a new reference or null with an exception.
    unsafe { Bound::from_owned_ptr_or_err(object.py(), ffi::PySequence_List(object.as_ptr())) }
        .map_err(|_| errors::not_a_header_list())?
        .cast_into::<PyList>()
        .map_err(PyErr::from)
}

fn fast_pair<'py>(pair: &Bound<'py, PyAny>) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
    let is_pair = pair.is_instance_of::<PyTuple>() || pair.is_instance_of::<PyList>();
    if !is_pair || pair.len()? != 2 {
        return Err(errors::not_a_header(pair));
    }
    Ok((pair.get_item(0)?, pair.get_item(1)?))
}
