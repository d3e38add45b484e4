//! `LAYOUT`: the stats table's layout as Python values.

use prefork_io::stats::{self, exemplars};
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// Builds the dict described by `Layout` in `_engine.pyi`.
pub fn layout(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let layout = PyDict::new(py);
    layout.set_item("magic", stats::MAGIC)?;
    layout.set_item("version", stats::VERSION)?;
    layout.set_item("header_bytes", stats::HEADER_BYTES)?;
    layout.set_item("slot_bytes", stats::SLOT_BYTES)?;
    let header = PyDict::new(py);
    for (cell, name) in stats::HEADER.iter().enumerate() {
        header.set_item(*name, cell)?;
    }
    header.set_item("bounds_us", stats::BOUNDS_AT)?;
    header.set_item("content", stats::CONTENT_AT)?;
    layout.set_item("header", header)?;
    let slot = PyDict::new(py);
    for (name, cell) in stats::SLOT {
        slot.set_item(*name, *cell)?;
    }
    layout.set_item("slot", slot)?;
    layout.set_item("methods", stats::METHODS.to_vec())?;
    layout.set_item("codes", stats::CODES.to_vec())?;
    layout.set_item("bounds_max", stats::BOUNDS_MAX)?;
    layout.set_item("content_bytes", stats::CONTENT_CELLS * 8)?;
    layout.set_item("exemplars", exemplars::EXEMPLARS)?;
    layout.set_item("exemplar_cells", exemplars::EXEMPLAR_CELLS)?;
    layout.set_item("lines", stats::LINES)?;
    layout.set_item("line_bytes", stats::LINE_CELLS * 8)?;
    Ok(layout)
}
