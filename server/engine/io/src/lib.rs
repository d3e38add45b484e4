//! Sockets, epoll, timers, the stats table and the handing over of connections, for one worker process.
//!
//! ```text
//! sys ← buffer, intake, out_queue ← conn ← reactor ← server → call_state
//!         budget, spool, pace         ↑        ↑         ↑
//!                                   accounting ← shared (settings, stats, access_log), handover
//! ```
//!
//! What is on its way: `intake` a request's body, `out_queue` an answer. Both take memory from one `budget`, disk from
//! a `spool`, and time from the client's `pace`.
//!
//! Knows no Python: `py` gives calls to the app and brings back bytes.

pub mod access_line;
pub mod access_log;
pub mod accounting;
pub mod budget;
pub mod buffer;
pub mod call_state;
pub mod conn;
pub mod forked;
pub mod handover;
pub mod intake;
pub mod out_queue;
pub mod owner;
pub mod pace;
pub mod reactor;
pub mod server;
pub mod settings;
pub mod shared;
pub mod spool;
pub mod stats;
pub mod sys;
