//! Builds the WSGI environ (PEP 3333) of a call, as fast as can be: half of a small request's cost is here.
//!
//! A template with all that does not change is copied, the fields of the usual requests included: see [`template`].
//! Raw `pyo3::ffi` where it saves much.

mod keys;
mod template;

use prefork_core::forwarded::{self, Scheme};
use prefork_core::head::{Field, Head, decode_path};
use prefork_core::{Method, NameId};
use prefork_io::conn::Conn;
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};

use crate::text::{is_ascii_text, latin1};

use keys::Keys;
use template::Templates;

/// Settings that reach the app.
pub struct StaticEnviron {
    /// `SCRIPT_NAME`: the path this app is mounted at, without a slash at its end.
    pub script_name: String,
    /// `SERVER_SOFTWARE`.
    pub server_software: String,
    /// `wsgi.multithread`.
    pub is_multithread: bool,
    /// `wsgi.multiprocess`.
    pub is_multiprocess: bool,
}

/// Builds environs for one app thread.
pub struct Environ {
    templates: Templates,
    script_name: Vec<u8>,
    keys: Keys,
    methods: Vec<Py<PyString>>,
    names: Names,
    path: Vec<u8>,
    /// The last target, if it may be kept: what is asked for often comes several times in a row.
    last_target: Option<Py<PyString>>,
    protocol_1_0: Py<PyString>,
}

struct Names {
    request_method: Py<PyString>,
    path_info: Py<PyString>,
    query_string: Py<PyString>,
    raw_uri: Py<PyString>,
    remote_addr: Py<PyString>,
    remote_port: Py<PyString>,
    server_name: Py<PyString>,
    server_port: Py<PyString>,
    server_protocol: Py<PyString>,
    url_scheme: Py<PyString>,
    input: Py<PyString>,
    https: Py<PyString>,
    script_name: Py<PyString>,
    http_script_name: Py<PyString>,
}

/// Room for the fields of an ordinary request, so that adding them does not make the dict grow.
const TEMPLATE_ROOM: usize = 24;

/// Longest target kept for the next request.
const KEPT_TARGET_BYTES: usize = 512;

fn interned(py: Python<'_>, text: &str) -> Py<PyString> {
    PyString::intern(py, text).unbind()
}

impl Environ {
    /// Prepares what all environs of a thread share. `errors` is `wsgi.errors`, `input` that of a request without body.
    pub fn new(
        py: Python<'_>,
        static_environ: &StaticEnviron,
        errors: &Bound<'_, PyAny>,
        input: &Bound<'_, PyAny>,
    ) -> PyResult<Self> {
        let names = Names {
            request_method: interned(py, "REQUEST_METHOD"),
            path_info: interned(py, "PATH_INFO"),
            query_string: interned(py, "QUERY_STRING"),
            raw_uri: interned(py, "RAW_URI"),
            remote_addr: interned(py, "REMOTE_ADDR"),
            remote_port: interned(py, "REMOTE_PORT"),
            server_name: interned(py, "SERVER_NAME"),
            server_port: interned(py, "SERVER_PORT"),
            server_protocol: interned(py, "SERVER_PROTOCOL"),
            url_scheme: interned(py, "wsgi.url_scheme"),
            input: interned(py, "wsgi.input"),
            https: interned(py, "https"),
            script_name: interned(py, "SCRIPT_NAME"),
            http_script_name: interned(py, "HTTP_SCRIPT_NAME"),
        };
        let methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
        let methods: Vec<_> = methods.iter().map(|method| interned(py, method)).collect();
        let template = PyDict::new(py);
        let empty = PyString::intern(py, "");
        template.set_item(&names.request_method, &methods[0])?;
        template.set_item(&names.script_name, &static_environ.script_name)?;
        template.set_item(&names.path_info, &empty)?;
        template.set_item(&names.query_string, &empty)?;
        template.set_item(&names.raw_uri, &empty)?;
        template.set_item(&names.server_name, interned(py, "localhost"))?;
        template.set_item(&names.server_port, interned(py, "80"))?;
        template.set_item(&names.server_protocol, interned(py, "HTTP/1.1"))?;
        template.set_item(interned(py, "SERVER_SOFTWARE"), &static_environ.server_software)?;
        template.set_item(&names.remote_addr, &empty)?;
        template.set_item(&names.remote_port, interned(py, "0"))?;
        template.set_item("wsgi.version", PyTuple::new(py, [1, 0])?)?;
        template.set_item(&names.url_scheme, interned(py, "http"))?;
        template.set_item(&names.input, input)?;
        template.set_item("wsgi.errors", errors)?;
        template.set_item("wsgi.multithread", static_environ.is_multithread)?;
        template.set_item("wsgi.multiprocess", static_environ.is_multiprocess)?;
        template.set_item("wsgi.run_once", false)?;
        template.set_item("wsgi.input_terminated", true)?;
        template
            .set_item("wsgi.file_wrapper", py.get_type::<crate::file_wrapper::FileWrapper>())?;
        // A dict never shrinks by itself, and a copy has the room of its original.
        for filler in template.len()..TEMPLATE_ROOM {
            template.set_item(format!("filler {filler}"), &empty)?;
        }
        for filler in (0..TEMPLATE_ROOM).rev() {
            let filler = format!("filler {filler}");
            if template.contains(&filler)? {
                template.del_item(filler)?;
            }
        }
        Ok(Self {
            templates: Templates::new(template.unbind()),
            script_name: static_environ.script_name.clone().into_bytes(),
            keys: Keys::new(py),
            methods,
            names,
            path: Vec::new(),
            last_target: None,
            protocol_1_0: interned(py, "HTTP/1.0"),
        })
    }

    /// The environ of the call on `conn`; its `wsgi.input` has no body.
    pub fn build<'py>(&mut self, py: Python<'py>, conn: &Conn) -> PyResult<Bound<'py, PyDict>> {
        let request = conn.request();
        let (head, bytes) = (&request.head, request.head_bytes());
        let (environ, has_fields) = self.templates.copy(py, conn, &self.names, &mut self.keys)?;

        match head.method {
            Method::Get => {}
            Method::Other => {
                set(
                    &environ,
                    &self.names.request_method,
                    &latin1(py, head.method_name.of(bytes))?,
                )?;
            }
            method => {
                set(&environ, &self.names.request_method, self.methods[method as usize].bind(py))?;
            }
        }
        let target = self.target(py, head, bytes)?;
        let mut path = head.path(bytes);
        if head.is_path_encoded {
            decode_path(path, &mut self.path);
            path = &self.path;
        }
        let mounted = if conn.peer.is_listed { forwarded::script_name(head, bytes) } else { None };
        let path = below(path, mounted.unwrap_or(&self.script_name));
        if path.len() == head.target.len() && !head.is_path_encoded {
            set(&environ, &self.names.path_info, &target)?;
        } else {
            set(&environ, &self.names.path_info, &latin1(py, path)?)?;
        }
        set(&environ, &self.names.raw_uri, &target)?;
        if !head.query.is_empty() {
            set(&environ, &self.names.query_string, &latin1(py, head.query.of(bytes))?)?;
        }
        if head.minor == 0 {
            set(&environ, &self.names.server_protocol, self.protocol_1_0.bind(py))?;
        }
        if conn.scheme() == Scheme::Https {
            set(&environ, &self.names.url_scheme, self.names.https.bind(py))?;
        }
        if let Some(mounted) = mounted {
            let mounted = latin1(py, mounted)?;
            set(&environ, &self.names.script_name, &mounted)?;
            set(&environ, &self.names.http_script_name, &mounted)?;
        }
        if !has_fields {
            for field in &head.fields {
                self.set_field(py, &environ, field, bytes)?;
            }
        }
        if let Some(id) = &conn.made_id {
            set(&environ, self.keys.known(NameId::X_REQUEST_ID), &latin1(py, id)?)?;
        }
        Ok(environ)
    }

    /// The target as sent. One with a query is not kept: it may hold a secret, and seldom comes again.
    fn target<'py>(
        &mut self,
        py: Python<'py>,
        head: &Head,
        bytes: &[u8],
    ) -> PyResult<Bound<'py, PyAny>> {
        let target = head.target.of(bytes);
        if let Some(last) = &self.last_target
            && is_ascii_text(last.bind(py), target)
        {
            return Ok(last.bind(py).clone().into_any());
        }
        let text = latin1(py, target)?;
        if head.query.is_empty() && target.len() <= KEPT_TARGET_BYTES {
            self.last_target = Some(text.clone().cast_into::<PyString>()?.unbind());
        }
        Ok(text)
    }

    /// Puts another `wsgi.input` in.
    pub fn set_input(&self, environ: &Bound<'_, PyDict>, input: &Bound<'_, PyAny>) -> PyResult<()> {
        set(environ, &self.names.input, input)
    }

    /// Says how long a body is that came in chunks and is all there: many apps look at `CONTENT_LENGTH` alone. It then
    /// has no transfer coding any more (RFC 9112 §7.1.3).
    pub fn set_length(&self, environ: &Bound<'_, PyDict>, length: u64) {
        // Neither can fail but for want of memory; the body can be read without them.
        let _ = environ.set_item(self.keys.known(NameId::CONTENT_LENGTH), length.to_string());
        let _ = environ.del_item(self.keys.known(NameId::TRANSFER_ENCODING));
    }

    fn set_field(
        &mut self,
        py: Python<'_>,
        environ: &Bound<'_, PyDict>,
        field: &Field,
        bytes: &[u8],
    ) -> PyResult<()> {
        let value = latin1(py, field.value.of(bytes))?;
        let key = self.keys.of(py, field, bytes);
        match field.id {
            NameId::UNKNOWN => set_new(environ, &key, &value),
            id if field.is_repeat => append(environ, &key, &value, id),
            _ => set(environ, &key, &value),
        }
    }
}

/// The path below the mount point; a request outside it (a probe straight to the pod) keeps its path.
fn below<'a>(path: &'a [u8], script_name: &[u8]) -> &'a [u8] {
    match path.strip_prefix(script_name) {
        Some(rest) if rest.is_empty() || rest[0] == b'/' => rest,
        _ => path,
    }
}

/// `environ[key] = value`.
fn set(environ: &Bound<'_, PyDict>, key: &Py<PyString>, value: &Bound<'_, PyAny>) -> PyResult<()> {
    // SAFETY: the GIL is held; all three are live objects of the right types; no reference is stolen.
    let result = unsafe { ffi::PyDict_SetItem(environ.as_ptr(), key.as_ptr(), value.as_ptr()) };
    if result == 0 { Ok(()) } else { Err(PyErr::fetch(environ.py())) }
}

/// As [`set`], but joins the value to one that is there: an unknown name may have come before.
fn set_new(
    environ: &Bound<'_, PyDict>,
    key: &Py<PyString>,
    value: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let count = environ.len();
    // SAFETY: the GIL is held; live objects; a new reference, or null with an exception, comes back.
    #[cfg(Py_3_13)]
    let earlier = unsafe {
        let mut earlier = std::ptr::null_mut();
        ffi::PyDict_SetDefaultRef(environ.as_ptr(), key.as_ptr(), value.as_ptr(), &raw mut earlier);
        Bound::from_owned_ptr_or_err(environ.py(), earlier)?
    };
    // SAFETY: as above, but the reference is borrowed from the dict.
    #[cfg(not(Py_3_13))]
    let earlier = unsafe {
        let earlier = ffi::PyDict_SetDefault(environ.as_ptr(), key.as_ptr(), value.as_ptr());
        Bound::from_borrowed_ptr_or_err(environ.py(), earlier)?
    };
    if environ.len() == count {
        return join(environ, key, &earlier, value, ",");
    }
    Ok(())
}

/// Joins a repeated field to the earlier ones (RFC 9110 §5.3); cookies as browsers write them.
fn append(
    environ: &Bound<'_, PyDict>,
    key: &Py<PyString>,
    value: &Bound<'_, PyAny>,
    id: NameId,
) -> PyResult<()> {
    let separator = if id == NameId::COOKIE { "; " } else { "," };
    match environ.get_item(key)? {
        Some(earlier) => join(environ, key, &earlier, value, separator),
        None => set(environ, key, value),
    }
}

fn join(
    environ: &Bound<'_, PyDict>,
    key: &Py<PyString>,
    earlier: &Bound<'_, PyAny>,
    value: &Bound<'_, PyAny>,
    separator: &str,
) -> PyResult<()> {
    let both = earlier.add(separator)?.add(value)?;
    set(environ, key, &both)
}

/// The name under which a thread finds its own identity; kept here to be interned once.
pub fn thread_ident(py: Python<'_>) -> PyResult<u64> {
    py.import(intern!(py, "_thread"))?.call_method0(intern!(py, "get_ident"))?.extract()
}
