//! The environ keys of field names.

use std::collections::HashMap;

use prefork_core::NameId;
use prefork_core::head::Field;
use prefork_core::name::KNOWN;
use pyo3::prelude::*;
use pyo3::types::PyString;

/// Keys of unknown names kept at most: beyond, they are made anew, so that hostile names cost no memory.
const UNKNOWN_KEYS_MAX: usize = 256;

/// Longest unknown name whose key is kept. 256 names of 8 kB would stay in each thread for its life.
pub const KEPT_NAME_BYTES: usize = 64;

/// See the head of this file.
pub struct Keys {
    known: Vec<Py<PyString>>,
    unknown: HashMap<Vec<u8>, Py<PyString>>,
}

impl Keys {
    /// The keys of all known names.
    pub fn new(py: Python<'_>) -> Self {
        let keys = KNOWN.iter().map(|name| PyString::intern(py, &key_of(name.as_bytes())).unbind());
        Self { known: keys.collect(), unknown: HashMap::new() }
    }

    /// The key of a known name.
    pub fn known(&self, id: NameId) -> &Py<PyString> {
        &self.known[id.index()]
    }

    /// The key of a field of the head that was read from `bytes`.
    pub fn of(&mut self, py: Python<'_>, field: &Field, bytes: &[u8]) -> Py<PyString> {
        if field.id != NameId::UNKNOWN {
            return self.known(field.id).clone_ref(py);
        }
        let name = field.name.of(bytes);
        if let Some(key) = self.unknown.get(name) {
            return key.clone_ref(py);
        }
        // Not interned: interned strings may never be freed, and names are the client's.
        let key = PyString::new(py, &key_of(name)).unbind();
        if name.len() <= KEPT_NAME_BYTES && self.unknown.len() < UNKNOWN_KEYS_MAX {
            self.unknown.insert(name.to_vec(), key.clone_ref(py));
        }
        key
    }
}

/// `User-Agent` → `HTTP_USER_AGENT`.
fn key_of(name: &[u8]) -> String {
    let upper =
        name.iter().map(|&b| if b == b'-' { '_' } else { char::from(b.to_ascii_uppercase()) });
    let upper: String = upper.collect();
    match upper.as_str() {
        "CONTENT_TYPE" | "CONTENT_LENGTH" => upper,
        _ => format!("HTTP_{upper}"),
    }
}
