//! Files without a name that hold what memory should not: large bodies on their way in, answers that nobody reads.
//!
//! A spool is one directory and a budget of bytes in it. A file is gone with its last descriptor, also when the
//! process is killed: nothing is ever left behind.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::budget::{Budget, Reserved};

/// Where files go, and how many bytes they may hold together.
pub struct Spool {
    directory: PathBuf,
    bytes: u64,
    budget: Budget,
}

impl Spool {
    /// Files in `directory` that hold up to `bytes` together; nothing is opened yet.
    #[must_use]
    pub fn new(directory: PathBuf, bytes: u64) -> Self {
        Self { directory, bytes, budget: Budget::new(bytes) }
    }

    /// As [`Spool::new`], when a file can be opened there at all; `None` also for no bytes.
    #[must_use]
    pub fn usable(directory: &Path, bytes: u64) -> Option<Self> {
        let spool = Self::new(directory.to_owned(), bytes);
        (bytes > 0 && spool.open(0).is_ok()).then_some(spool)
    }

    /// Bytes that its files may hold together.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// A new file with `bytes` of the budget; `None` when the budget has not so many left.
    ///
    /// # Errors
    /// What open(2) says: no such directory, no right to write, out of descriptors.
    pub fn open(&self, bytes: u64) -> io::Result<Option<SpoolFile>> {
        let Some(reserved) = self.budget.take(bytes) else { return Ok(None) };
        let file = self.open_nameless().or_else(|error| match error.raw_os_error() {
            // File systems without O_TMPFILE (overlayfs of older kernels, NFS).
            Some(libc::EOPNOTSUPP | libc::EISDIR | libc::EINVAL) => self.open_and_unlink(),
            _ => Err(error),
        })?;
        Ok(Some(SpoolFile { file, length: 0, reserved }))
    }

    fn open_nameless(&self) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).mode(0o600).custom_flags(libc::O_TMPFILE | libc::O_CLOEXEC);
        options.open(&self.directory)
    }

    fn open_and_unlink(&self) -> io::Result<File> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Relaxed);
        let path = self.directory.join(format!(".prefork-{}-{number}", std::process::id()));
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600);
        let file = options.open(&path)?;
        std::fs::remove_file(&path)?;
        Ok(file)
    }
}

/// One file of a spool.
pub struct SpoolFile {
    file: File,
    length: u64,
    reserved: Reserved,
}

impl SpoolFile {
    /// Bytes in it.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Makes sure that it may become `bytes` long; false when the budget has not so many left.
    pub fn cover(&mut self, bytes: u64) -> bool {
        self.reserved.cover(bytes)
    }

    /// Adds bytes at its end.
    ///
    /// # Errors
    /// `StorageFull` and whatever else write(2) says; the length is then as before.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, self.length)?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Reads from `offset` into the front of `into`; 0 is the end.
    ///
    /// # Errors
    /// pread(2).
    pub fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(into, offset)
    }
}

impl AsRawFd for SpoolFile {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn spool(bytes: u64) -> Spool {
        Spool::new(std::env::temp_dir(), bytes)
    }

    #[test]
    fn what_is_written_is_read_and_the_file_has_no_name() {
        let mut file = spool(100).open(10).unwrap().unwrap();
        file.append(b"01234").unwrap();
        file.append(b"56789").unwrap();
        let mut into = [0; 20];
        assert_eq!(file.read_at(&mut into, 3).unwrap(), 7);
        assert_eq!(&into[..7], b"3456789");
        assert_eq!(file.read_at(&mut into, 10).unwrap(), 0);
        assert_eq!((file.length(), file.file.metadata().unwrap().nlink()), (10, 0));
    }

    #[test]
    fn without_o_tmpfile_the_name_is_taken_away_at_once() {
        let file = spool(100).open_and_unlink().unwrap();
        assert_eq!(file.metadata().unwrap().nlink(), 0);
    }

    #[test]
    fn the_budget_holds_for_all_files_and_comes_back() {
        let spool = spool(100);
        let mut first = spool.open(60).unwrap().unwrap();
        assert!(spool.open(41).unwrap().is_none());
        assert!(first.cover(100));
        assert!(!first.cover(101));
        assert!(spool.open(1).unwrap().is_none());
        drop(first);
        assert!(spool.open(100).unwrap().is_some());
    }

    #[test]
    fn a_directory_that_cannot_be_used_is_an_error_and_costs_nothing() {
        let spool = Spool::new("/proc/no-such-directory".into(), 10);
        assert_eq!(spool.open(10).err().unwrap().kind(), io::ErrorKind::NotFound);
        assert!(spool.budget.take(10).is_some());
    }
}
