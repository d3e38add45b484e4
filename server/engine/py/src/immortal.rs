//! Makes the reference counts of code and constants stand still, so that processes go on sharing their memory (PEP 683).
//!
//! A forked worker writes into every object that it merely uses, namely its reference count, and each page that it
//! writes to is copied for it. `CPython` has counts that do not change since 3.12, for `None` and the like; this gives
//! them to what an app's import has made. Such objects are never freed, and nor is what only they refer to.

use std::collections::HashSet;
use std::ffi::{c_int, c_void};

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};

/// The count that never changes, in the first half of `ob_refcnt` (`_Py_IMMORTAL_REFCNT`, later `…_INITIAL_REFCNT`).
const IMMORTAL: u32 = if cfg!(Py_3_14) { 3 << 30 } else { u32::MAX };

/// Whether the layout that this file relies on is this interpreter's.
const IS_KNOWN: bool =
    cfg!(all(Py_3_12, not(Py_GIL_DISABLED), target_pointer_width = "64", target_endian = "little"));

/// See `_engine.pyi`.
#[pyfunction]
pub fn make_immortal(py: Python<'_>, kinds: &Bound<'_, PyTuple>) -> PyResult<usize> {
    if !IS_KNOWN {
        return Ok(0);
    }
    let objects = py.import("gc")?.call_method0("get_objects")?.cast_into::<PyList>()?;
    let mut search = Search {
        kinds: kinds.iter().map(|kind| kind.as_ptr().cast()).collect(),
        found: Vec::new(),
        count: 0,
    };
    for object in objects.iter() {
        search.look_at(object.as_ptr());
        search.follow(object.as_ptr());
        while let Some(next) = search.found.pop() {
            search.follow(next);
        }
    }
    Ok(search.count)
}

/// See `_engine.pyi`.
#[pyfunction]
pub fn call_finalizer(object: &Bound<'_, PyAny>) {
    // SAFETY: a live object, the GIL is held; an exception is reported there (sys.unraisablehook), not returned.
    unsafe { ffi::PyObject_CallFinalizer(object.as_ptr()) }
}

/// All of it happens within one call, with the GIL held: no object goes away meanwhile.
struct Search {
    kinds: HashSet<*mut ffi::PyTypeObject>,
    /// Made immortal, not followed yet.
    found: Vec<*mut ffi::PyObject>,
    count: usize,
}

impl Search {
    fn look_at(&mut self, object: *mut ffi::PyObject) {
        // SAFETY: a live object, the GIL is held. Its count is its first field, of which the first 32 bits are looked at
        // by Py_INCREF and Py_DECREF of all versions with IS_KNOWN; the rest (of 3.14: flags) stays as it is.
        unsafe {
            let count = object.cast::<u32>();
            if !count.read().cast_signed().is_negative() && self.is_wanted(object) {
                count.write(IMMORTAL);
                self.count += 1;
                self.found.push(object);
            }
        }
    }

    /// # Safety
    /// A live object, and the GIL is held.
    unsafe fn is_wanted(&self, object: *mut ffi::PyObject) -> bool {
        // SAFETY: by the caller.
        unsafe {
            let kind = ffi::Py_TYPE(object);
            if ffi::PyTuple_CheckExact(object) != 0 {
                // One that the collector does not track refers to constants alone.
                return self.kinds.contains(&kind) && ffi::PyObject_GC_IsTracked(object) == 0;
            }
            self.kinds.contains(&kind)
                || (ffi::PyType_Check(object) != 0
                    && self.kinds.contains(&(&raw mut ffi::PyType_Type)))
        }
    }

    /// Looks at what an object refers to.
    fn follow(&mut self, object: *mut ffi::PyObject) {
        // SAFETY: a live object, the GIL is held; as the garbage collector calls tp_traverse, `visit` takes no references
        // and runs no Python code.
        unsafe {
            if ffi::PyCode_Check(object) != 0 {
                self.follow_code(object);
            }
            let traverse = (*ffi::Py_TYPE(object)).tp_traverse;
            if ffi::PyObject_IS_GC(object) != 0
                && let Some(traverse) = traverse
            {
                traverse(object, visit, std::ptr::from_mut(self).cast());
            }
        }
    }

    /// What a code object refers to is not traversed, as it cannot be part of a cycle.
    ///
    /// # Safety
    /// A live code object, and the GIL is held.
    unsafe fn follow_code(&mut self, code: *mut ffi::PyObject) {
        for name in [
            c"co_consts",
            c"co_names",
            c"co_name",
            c"co_qualname",
            c"co_filename",
            c"co_linetable",
            c"co_exceptiontable",
        ] {
            // SAFETY: by the caller. The code object holds a reference of its own to what is looked at, so it stays.
            unsafe {
                let value = ffi::PyObject_GetAttrString(code, name.as_ptr());
                if value.is_null() {
                    ffi::PyErr_Clear();
                } else {
                    self.look_at(value);
                    ffi::Py_DECREF(value);
                }
            }
        }
    }
}

extern "C" fn visit(object: *mut ffi::PyObject, search: *mut c_void) -> c_int {
    // SAFETY: `follow` passes itself, and tp_traverse calls this with live objects, while `follow` waits for it.
    let search = unsafe { &mut *search.cast::<Search>() };
    search.look_at(object);
    0
}
