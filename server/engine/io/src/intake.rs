//! The body of one request on its way in: in memory first, then in a file of the spool.
//!
//! The app is called when all of it is here, so that a slow or silent client never holds an app thread. What has been
//! received counts, not what was announced: a client that announces much and sends little costs little.

use std::io;

use crate::budget::{Budget, Reserved};
use crate::pace::{Pace, Patience};
use crate::spool::{Spool, SpoolFile};

/// Of one body, memory never holds more.
pub const MEMORY_BYTES_MAX: usize = 1024 * 1024;

/// A file of a body whose length is not known grows by this much at once.
const GROWTH_BYTES: u64 = 1024 * 1024;

/// What became of the wish to take in more.
#[derive(Debug)]
pub enum Room {
    /// It fits.
    Here,
    /// Not now: what others have has to go first.
    Full,
    /// It would not fit if nothing else were there.
    Never,
    /// There is no spool, and no more memory: the app has to read while the body comes.
    NoSpool,
    /// The file system refuses.
    Broken(io::Error),
}

/// One body, as far as it is here. The bytes in memory are the caller's.
#[derive(Default)]
pub struct Intake {
    memory: Option<Reserved>,
    file: Option<SpoolFile>,
    pace: Pace,
    /// Up to here the client was waited for.
    waited_until_us: u64,
}

impl Intake {
    /// From now on the client is waited for.
    pub fn start(&mut self, now_us: u64) {
        self.pace = Pace::start(now_us);
        self.waited_until_us = now_us;
    }

    /// So many more bytes have come.
    pub fn moved(&mut self, bytes: usize, now_us: u64) {
        self.pace.moved(bytes as u64, now_us);
        self.waited_until_us = now_us;
    }

    /// The client is waited for again; since the last byte, or the last wait, it was not.
    pub fn resume(&mut self, now_us: u64) {
        self.pace.excuse(now_us.saturating_sub(self.waited_until_us));
        self.waited_until_us = now_us;
    }

    /// So much time was not the client's.
    pub fn excuse(&mut self, time_us: u64) {
        self.pace.excuse(time_us);
        self.waited_until_us += time_us;
    }

    /// When the client is too slow.
    #[must_use]
    pub fn deadline_us(&self, patience: Patience) -> u64 {
        self.pace.deadline_us(patience)
    }

    /// Others may be waiting for what it holds.
    #[must_use]
    pub fn holds_room(&self) -> bool {
        self.memory.is_some() || self.file.is_some()
    }

    /// The body is in a file.
    #[must_use]
    pub fn is_spooled(&self) -> bool {
        self.file.is_some()
    }

    /// Makes sure that `count` more bytes may be kept, beside `body` in memory. `total` is the length of the whole body, when
    /// that is known.
    pub fn make_room(
        &mut self,
        body: &mut Vec<u8>,
        count: usize,
        total: Option<u64>,
        memory: &Budget,
        spool: Option<&Spool>,
    ) -> Room {
        let wanted = body.len() + count;
        if self.file.is_none()
            && wanted <= MEMORY_BYTES_MAX
            && memory.cover(&mut self.memory, wanted as u64)
        {
            return Room::Here;
        }
        let Some(spool) = spool else { return Room::NoSpool };
        let held = self.file.as_ref().map_or(body.len() as u64, SpoolFile::length);
        let total = total.unwrap_or((held + count as u64).next_multiple_of(GROWTH_BYTES));
        if total > spool.bytes() {
            return Room::Never;
        }
        match self.reserve(body, total, spool) {
            Ok(true) => Room::Here,
            Ok(false) => Room::Full,
            Err(error) => Room::Broken(error),
        }
    }

    /// Makes the file `total` bytes long at most; at first what is in memory moves to it.
    fn reserve(&mut self, body: &mut Vec<u8>, total: u64, spool: &Spool) -> io::Result<bool> {
        if let Some(file) = &mut self.file {
            return Ok(file.cover(total));
        }
        let Some(mut file) = spool.open(total)? else { return Ok(false) };
        file.append(body)?;
        *body = Vec::new();
        self.memory = None;
        self.file = Some(file);
        Ok(true)
    }

    /// Keeps `bytes`, for which there is room.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn store(&mut self, bytes: &[u8], body: &mut Vec<u8>) -> io::Result<()> {
        if let Some(file) = &mut self.file {
            return file.append(bytes);
        }
        body.extend_from_slice(bytes);
        Ok(())
    }

    /// The file, for whoever reads the body.
    #[must_use]
    pub fn take_file(&mut self) -> Option<SpoolFile> {
        self.file.take()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn spool(bytes: u64) -> Spool {
        Spool::new(std::env::temp_dir(), bytes)
    }

    fn take_in(
        intake: &mut Intake,
        body: &mut Vec<u8>,
        bytes: &[u8],
        memory: &Budget,
        spool: &Spool,
    ) {
        let room = intake.make_room(body, bytes.len(), None, memory, Some(spool));
        assert!(matches!(room, Room::Here), "{room:?}");
        intake.store(bytes, body).unwrap();
    }

    #[test]
    fn a_body_moves_to_a_file_when_it_outgrows_memory() {
        let (memory, spool) = (Budget::new(10 << 20), spool(10 << 20));
        let (mut intake, mut body) = (Intake::default(), Vec::new());
        for byte in 0..=16 {
            assert_eq!(intake.is_spooled(), byte > 16);
            take_in(&mut intake, &mut body, &vec![byte; 1 << 16], &memory, &spool);
        }
        assert!(body.is_empty());
        let file = intake.take_file().unwrap();
        assert_eq!(file.length(), 17 << 16);
        let mut last = [0; 2];
        assert_eq!(file.read_at(&mut last, (17 << 16) - 2).unwrap(), 2);
        assert_eq!(last, [16, 16]);
        assert!(memory.take(10 << 20).is_some());
    }

    #[test]
    fn a_small_body_moves_to_a_file_when_others_have_the_memory() {
        let (memory, spool) = (Budget::new(10), spool(100));
        let (mut intake, mut body) = (Intake::default(), b"before".to_vec());
        let room = intake.make_room(&mut body, 5, Some(11), &memory, Some(&spool));
        assert!(matches!(room, Room::Here));
        assert!(intake.is_spooled() && body.is_empty());
    }

    #[test]
    fn a_full_spool_a_small_one_and_none_are_told_apart() {
        let (memory, spool) = (Budget::new(0), spool(100));
        let _other = spool.open(60).unwrap().unwrap();
        let ask = |total, spool| {
            Intake::default().make_room(&mut Vec::new(), 1, Some(total), &memory, spool)
        };
        assert!(matches!(ask(40, Some(&spool)), Room::Here));
        assert!(matches!(ask(41, Some(&spool)), Room::Full));
        assert!(matches!(ask(100, Some(&spool)), Room::Full));
        assert!(matches!(ask(101, Some(&spool)), Room::Never));
        assert!(matches!(ask(1, None), Room::NoSpool));
    }

    #[test]
    fn a_file_system_that_refuses_says_why() {
        let spool = Spool::new("/proc/no-such-directory".into(), 100);
        let room =
            Intake::default().make_room(&mut Vec::new(), 1, None, &Budget::new(0), Some(&spool));
        assert!(matches!(room, Room::Never), "{room:?}");
        let room =
            Intake::default().make_room(&mut Vec::new(), 1, Some(9), &Budget::new(0), Some(&spool));
        assert!(matches!(room, Room::Broken(_)), "{room:?}");
    }

    #[test]
    fn only_the_client_s_own_time_counts() {
        let patience = Patience { pause_us: 100, bytes_per_s: 0 };
        let mut intake = Intake::default();
        intake.start(1000);
        intake.moved(5, 1050);
        assert_eq!(intake.deadline_us(patience), 1150);
        intake.resume(5050);
        assert_eq!(intake.deadline_us(patience), 5150);
    }
}
