//! Descriptors in messages between processes.

use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::errno::{check, check_size, length_of, retry};

/// A connected pair of `SOCK_SEQPACKET` sockets, close-on-exec and non-blocking.
///
/// # Errors
/// Out of descriptors.
pub fn socket_pair() -> io::Result<[OwnedFd; 2]> {
    let mut ends = [-1; 2];
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: the kernel writes two descriptors to the array.
    check(unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, ends.as_mut_ptr()) })?;
    // SAFETY: both are new and owned by nobody else.
    Ok(ends.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// Room for the control data of one passed descriptor, aligned as `cmsghdr` wants.
#[repr(C, align(8))]
struct Control([u8; 64]);

/// Sends one message with one descriptor over a `SOCK_SEQPACKET` socket, all or nothing.
///
/// # Errors
/// `WouldBlock` when the queue is full; `EMSGSIZE` when it never fits; `ETOOMANYREFS` when too many descriptors
/// are on their way; else sendmsg(2).
pub fn send_descriptor(fd: RawFd, pieces: [&[u8]; 2], passed: BorrowedFd<'_>) -> io::Result<()> {
    let mut vectors =
        pieces.map(|p| libc::iovec { iov_base: p.as_ptr().cast_mut().cast(), iov_len: p.len() });
    let mut control = Control([0; 64]);
    // SAFETY: all-zero is a valid msghdr.
    let mut message: libc::msghdr = unsafe { zeroed() };
    message.msg_iov = vectors.as_mut_ptr();
    message.msg_iovlen = vectors.len();
    message.msg_control = control.0.as_mut_ptr().cast();
    let payload = length_of::<RawFd>();
    // SAFETY: CMSG_SPACE and CMSG_LEN only compute. `control` is aligned and has room for one descriptor, hence
    // CMSG_FIRSTHDR is not null and CMSG_DATA points to four bytes inside it.
    unsafe {
        message.msg_controllen = libc::CMSG_SPACE(payload) as usize;
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(payload) as usize;
        let fd = passed.as_raw_fd().to_ne_bytes();
        libc::CMSG_DATA(header).copy_from_nonoverlapping(fd.as_ptr(), fd.len());
    }
    retry(|| {
        // SAFETY: the message points to `vectors` (and these to the slices) and `control`; all live through the call.
        check_size(unsafe {
            libc::sendmsg(fd, &raw const message, libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT)
        })
    })?;
    Ok(())
}

/// Receives one message into the front of `into`, and the descriptor that came with it, close-on-exec.
///
/// # Errors
/// `WouldBlock` when none waits; `UnexpectedEof` when all senders are gone; `InvalidData` when the message did not
/// fit; else recvmsg(2).
pub fn receive_descriptor(fd: RawFd, into: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut vector = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
    let mut control = Control([0; 64]);
    // SAFETY: all-zero is a valid msghdr.
    let mut message: libc::msghdr = unsafe { zeroed() };
    message.msg_iov = &raw mut vector;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = control.0.len();
    let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    // SAFETY: the message points to `vector` (and this to `into`) and `control`; all live through the call.
    let count = retry(|| check_size(unsafe { libc::recvmsg(fd, &raw mut message, flags) }))?;
    let mut passed = None;
    // SAFETY: the kernel wrote well-formed control data and its length; each SCM_RIGHTS entry holds whole
    // descriptors that are now this process's own, each wrapped exactly once. A second one is closed by the drop.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(&raw const message);
        while !header.is_null() {
            if (*header).cmsg_level == libc::SOL_SOCKET && (*header).cmsg_type == libc::SCM_RIGHTS {
                let bytes = (*header).cmsg_len - libc::CMSG_LEN(0) as usize;
                let data = libc::CMSG_DATA(header);
                for at in (0..bytes).step_by(size_of::<RawFd>()) {
                    let mut fd = [0; size_of::<RawFd>()];
                    data.add(at).copy_to_nonoverlapping(fd.as_mut_ptr(), fd.len());
                    passed = Some(OwnedFd::from_raw_fd(RawFd::from_ne_bytes(fd)));
                }
            }
            header = libc::CMSG_NXTHDR(&raw const message, header);
        }
    }
    if message.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a passed connection did not fit"));
    }
    if count == 0 && passed.is_none() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok((count, passed))
}
