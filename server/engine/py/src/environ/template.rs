//! Templates of environs: what one request has in common with the next.
//!
//! Clients of one kind send the same field names in the same order, and mostly the same values. A template holds the
//! keys of one such row of names and the last values, so that a request with these names costs a copy of the dict and
//! a comparison per value. Requests with other names get the base template, without fields; every so often one of them
//! teaches a new one.

use prefork_core::NameId;
use prefork_core::head::Field;
use prefork_io::conn::Conn;
use prefork_io::sys::Address;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use super::keys::{KEPT_NAME_BYTES, Keys};
use super::{Names, set};
use crate::text::{is_ascii_text, latin1};

/// Templates of rows of names, kept per thread; a new one takes the place of the oldest.
const TEMPLATES_MAX: usize = 16;

/// Of the requests that no template fits, each so many teaches one: what is frequent is learned soon, and names that
/// never come again cost little.
const TEACHES_EACH: u32 = 16;

/// Longest row of names that is learned.
const FIELDS_MAX: usize = 40;

/// Longest value kept for the next request.
const KEPT_VALUE_BYTES: usize = 512;

/// Port numbers kept as text; a power of two.
const PORTS_KEPT: usize = 64;

/// Fields whose values are never kept: secrets, and what is different each time.
const NOT_KEPT: [NameId; 10] = [
    NameId::UNKNOWN,
    NameId::COOKIE,
    NameId::AUTHORIZATION,
    NameId::PROXY_AUTHORIZATION,
    NameId::CONTENT_LENGTH,
    NameId::X_CSRF_TOKEN,
    NameId::X_CSRFTOKEN,
    NameId::X_API_KEY,
    NameId::X_REQUEST_ID,
    NameId::TRACEPARENT,
];

/// All templates of an app thread.
pub struct Templates {
    base: Template,
    learned: Vec<Template>,
    /// The one that was used last: the first to be looked at.
    last: usize,
    /// The one that the next to be learned replaces.
    oldest: usize,
    /// Requests that fitted none of them.
    misses: u32,
    ports: Ports,
}

/// `REMOTE_PORT` of recent connections, each at the place that its last bits say.
struct Ports([Option<(u16, Py<PyString>)>; PORTS_KEPT]);

/// The environ of requests with one row of names.
struct Template {
    environ: Py<PyDict>,
    fields: Vec<KnownField>,
    /// What it says of the connection.
    peer: (String, u16),
    local: Address,
}

/// One field of a template.
struct KnownField {
    id: NameId,
    /// An unknown name as sent; empty for a known one.
    name: Box<[u8]>,
    key: Py<PyString>,
    /// The value in the template; none where it is not kept, and has to be set in each environ.
    last: Option<Py<PyString>>,
    is_kept: bool,
}

impl Templates {
    /// Only the base template: an environ without fields.
    pub fn new(base: Py<PyDict>) -> Self {
        let base = Template::new(base, Vec::new(), Address::Unix);
        Self { base, learned: Vec::new(), last: 0, oldest: 0, misses: 0, ports: Ports::new() }
    }

    /// A new environ for the request on `conn`, with the addresses, and whether it has the fields too.
    pub fn copy<'py>(
        &mut self,
        py: Python<'py>,
        conn: &Conn,
        names: &Names,
        keys: &mut Keys,
    ) -> PyResult<(Bound<'py, PyDict>, bool)> {
        let request = conn.request();
        let (fields, bytes) = (&request.head.fields, request.head_bytes());
        let port = self.ports.get(py, conn.peer.port)?;
        let Some(template) = self.find(fields, bytes) else {
            self.misses = self.misses.wrapping_add(1);
            if self.misses.is_multiple_of(TEACHES_EACH)
                && let Some(template) = self.base.extend(py, fields, bytes, keys)?
            {
                self.learn(template);
            }
            return Ok((self.base.copy(py, conn, names, &port)?, false));
        };
        let environ = template.copy(py, conn, names, &port)?;
        template.set_values(py, &environ, fields, bytes)?;
        Ok((environ, true))
    }

    fn find(&mut self, fields: &[Field], bytes: &[u8]) -> Option<&mut Template> {
        let fits = |template: &Template| template.fits(fields, bytes);
        if !self.learned.get(self.last).is_some_and(fits) {
            self.last = self.learned.iter().position(fits)?;
        }
        self.learned.get_mut(self.last)
    }

    fn learn(&mut self, template: Template) {
        if self.learned.len() < TEMPLATES_MAX {
            self.learned.push(template);
            return;
        }
        self.learned[self.oldest] = template;
        self.oldest = (self.oldest + 1) % TEMPLATES_MAX;
    }
}

impl Template {
    fn new(environ: Py<PyDict>, fields: Vec<KnownField>, local: Address) -> Self {
        Self { environ, fields, peer: (String::new(), 0), local }
    }

    /// Whether a request has these names in this order.
    fn fits(&self, fields: &[Field], bytes: &[u8]) -> bool {
        self.fields.len() == fields.len()
            && self.fields.iter().zip(fields).all(|(known, field)| known.has_name_of(field, bytes))
    }

    /// This template and these fields; `None` where one of them comes twice, or there are too many.
    fn extend(
        &self,
        py: Python<'_>,
        fields: &[Field],
        bytes: &[u8],
        keys: &mut Keys,
    ) -> PyResult<Option<Self>> {
        if fields.len() > FIELDS_MAX {
            return Ok(None);
        }
        let environ = self.environ.bind(py).copy()?;
        let empty = PyString::intern(py, "");
        let mut known = Vec::with_capacity(fields.len());
        for field in fields {
            let key = keys.of(py, field, bytes);
            if field.name.len() > KEPT_NAME_BYTES || environ.contains(&key)? {
                return Ok(None);
            }
            set(&environ, &key, &empty)?;
            known.push(KnownField::new(field, bytes, key));
        }
        let mut template = Self::new(environ.unbind(), known, self.local.clone());
        template.peer.clone_from(&self.peer);
        Ok(Some(template))
    }

    fn copy<'py>(
        &mut self,
        py: Python<'py>,
        conn: &Conn,
        names: &Names,
        port: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyDict>> {
        self.renew_addresses(py, conn, names, port)?;
        self.environ.bind(py).copy()
    }

    fn renew_addresses(
        &mut self,
        py: Python<'_>,
        conn: &Conn,
        names: &Names,
        port: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let environ = self.environ.bind(py);
        if self.local != conn.local {
            let (name, port) = match &conn.local {
                Address::Ip(ip, port) => (ip.to_string(), port.to_string()),
                // PEP 3333: never empty. A URL is built from Host where there is one.
                Address::Unix => ("localhost".into(), "80".into()),
            };
            set(environ, &names.server_name, &latin1(py, name.as_bytes())?)?;
            set(environ, &names.server_port, &latin1(py, port.as_bytes())?)?;
            self.local = conn.local.clone();
        }
        if self.peer.1 != conn.peer.port {
            set(environ, &names.remote_port, port)?;
            self.peer.1 = conn.peer.port;
        }
        if self.peer.0 != conn.peer.host {
            let host = latin1(py, conn.peer.host.as_bytes())?;
            set(environ, &names.remote_addr, &host)?;
            self.peer.0.clone_from(&conn.peer.host);
        }
        Ok(())
    }

    /// Sets the values of a request that [fits](Self::fits), except those that the copy has already.
    fn set_values(
        &mut self,
        py: Python<'_>,
        environ: &Bound<'_, PyDict>,
        fields: &[Field],
        bytes: &[u8],
    ) -> PyResult<()> {
        for (known, field) in self.fields.iter_mut().zip(fields) {
            let value = field.value.of(bytes);
            if known.last.as_ref().is_some_and(|last| is_ascii_text(last.bind(py), value)) {
                continue;
            }
            let text = latin1(py, value)?;
            set(environ, &known.key, &text)?;
            if known.is_kept && value.len() <= KEPT_VALUE_BYTES && value.is_ascii() {
                set(self.environ.bind(py), &known.key, &text)?;
                known.last = Some(text.cast_into::<PyString>()?.unbind());
            }
        }
        Ok(())
    }
}

impl KnownField {
    fn new(field: &Field, bytes: &[u8], key: Py<PyString>) -> Self {
        let name: &[u8] = if field.id == NameId::UNKNOWN { field.name.of(bytes) } else { b"" };
        let is_kept = !NOT_KEPT.contains(&field.id);
        Self { id: field.id, name: name.into(), key, last: None, is_kept }
    }

    fn has_name_of(&self, field: &Field, bytes: &[u8]) -> bool {
        self.id == field.id && (field.id != NameId::UNKNOWN || *self.name == *field.name.of(bytes))
    }
}

impl Ports {
    fn new() -> Self {
        Self([const { None }; PORTS_KEPT])
    }

    fn get<'py>(&mut self, py: Python<'py>, port: u16) -> PyResult<Bound<'py, PyAny>> {
        let place = &mut self.0[usize::from(port) % PORTS_KEPT];
        if let Some((kept, text)) = place
            && *kept == port
        {
            return Ok(text.bind(py).clone().into_any());
        }
        let mut digits = [0; 5];
        let text = latin1(py, decimal(port, &mut digits))?;
        *place = Some((port, text.clone().cast_into::<PyString>()?.unbind()));
        Ok(text)
    }
}

fn decimal(mut number: u16, digits: &mut [u8; 5]) -> &[u8] {
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(number % 10).unwrap_or(0);
        number /= 10;
        if number == 0 {
            return &digits[at..];
        }
    }
}
