//! Clients that are too slow, and those that make way when memory and spool are full.

use super::Reactor;
use crate::conn::Conn;

/// Deadlines are looked at no more often than this.
const SCAN_EVERY_US: u64 = 50_000;

/// A deadline that is looked at so much too late: the process was stopped, or the whole machine.
const PAUSE_US: u64 = 1_000_000;

impl Reactor {
    pub(super) fn scan_deadlines(&mut self) {
        let now_us = self.now_us;
        if now_us.saturating_sub(self.next_deadline_us) > PAUSE_US {
            // Nobody looked, so the process did not run, since the last turn at the earliest. What the clients have
            // sent meanwhile is still to be read.
            let pause_us = now_us.saturating_sub(self.last_turn_us);
            for conn in self.slots.iter_mut().filter_map(|slot| slot.conn.as_mut()) {
                conn.excuse(pause_us);
            }
        }
        let mut nearest_us = u64::MAX;
        for index in 0..self.slots.len() {
            let Some(conn) = &self.slots[index].conn else { continue };
            if conn.deadline_us > now_us {
                nearest_us = nearest_us.min(conn.deadline_us);
                continue;
            }
            let Some(conn) = self.slots[index].conn.take() else { continue };
            self.guarded(u32::try_from(index).unwrap_or(u32::MAX), conn, Conn::on_deadline);
            if let Some(conn) = &self.slots[index].conn {
                nearest_us = nearest_us.min(conn.deadline_us);
            }
        }
        self.next_deadline_us =
            if nearest_us == u64::MAX { u64::MAX } else { nearest_us.max(now_us + SCAN_EVERY_US) };
    }

    /// Memory and spool are full: gives up clients that hold part of them and do not move.
    pub(super) fn make_way(&mut self) {
        let now_us = self.now_us;
        for index in 0..self.slots.len() {
            let slot = &mut self.slots[index];
            if slot.conn.as_mut().is_some_and(|conn| conn.is_in_the_way(&self.shared, now_us))
                && let Some(conn) = slot.conn.take()
            {
                self.guarded(u32::try_from(index).unwrap_or(u32::MAX), conn, Conn::give_up);
            }
        }
    }
}
