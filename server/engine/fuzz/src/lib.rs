//! What the fuzz targets check: the same functions as the property tests of `prefork-core`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a fuzz target reports")]

#[path = "../../core/tests/agreement/mod.rs"]
pub mod agreement;
#[path = "../../core/tests/reference/mod.rs"]
pub mod reference;
