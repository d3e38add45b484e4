//! Idle threads of other workers: who has one says so in the stats table, and gets requests that wait elsewhere.

use std::sync::atomic::Ordering::SeqCst;

use super::{Server, lock};
use crate::reactor::{Order, Reactor};
use crate::stats::cell;

impl Server {
    /// Passes requests that wait here for an app thread to workers that have one; when this worker is to leave, to
    /// whoever comes.
    pub(super) fn offload(&self, reactor: &mut Reactor) {
        let is_leaving = match self.order() {
            Order::Serve => false,
            Order::HandOver => true,
            Order::Close | Order::Stop => return,
        };
        while self.ready_count.load(SeqCst) > 0 {
            let Some(call) = lock(&self.run_queue).ready.pop_front() else { return };
            let target = if is_leaving { None } else { self.shared.table.reserve_idle() };
            let passed = if is_leaving || target.is_some() {
                reactor.hand_over_call(call)
            } else {
                Err(call)
            };
            let Err(call) = passed else {
                self.count_taken(1);
                continue;
            };
            if let Some(slot) = target {
                self.shared.table.release_idle(slot);
            }
            lock(&self.run_queue).ready.push_front(call);
            return;
        }
    }

    /// Tells the other workers how many app threads wait here.
    pub(super) fn advertise(&self, waiting: usize) {
        let idle = if self.order() == Order::Serve { waiting as u64 } else { 0 };
        self.shared.table.set(cell::idle_threads, idle);
    }
}
