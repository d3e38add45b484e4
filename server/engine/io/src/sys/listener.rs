//! Listening sockets.

use std::io;
use std::mem::zeroed;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use super::errno::{check, length_of, retry};
use super::socket::{Address, address_of, local_address};

/// Takes one connection; non-blocking, close-on-exec.
///
/// # Errors
/// `WouldBlock` when none waits; else what accept4(2) says.
pub fn accept(listener: RawFd) -> io::Result<(OwnedFd, Address)> {
    // SAFETY: all-zero is a valid sockaddr_storage.
    let mut storage: libc::sockaddr_storage = unsafe { zeroed() };
    let mut length = length_of::<libc::sockaddr_storage>();
    let fd = retry(|| {
        // SAFETY: `storage` and `length` live through the call and agree with each other.
        check(unsafe {
            libc::accept4(
                listener,
                (&raw mut storage).cast(),
                &raw mut length,
                libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC,
            )
        })
    })?;
    // SAFETY: accept4 gave a new descriptor that nobody else owns.
    Ok((unsafe { OwnedFd::from_raw_fd(fd) }, address_of(&storage)))
}

/// Depth and limit of a listening socket's accept queue; (0, 0) for a unix socket.
///
/// The kernel reports them in two fields of `TCP_INFO` that mean something else on a connection.
///
/// # Errors
/// Not a socket.
pub fn listen_queue(fd: RawFd) -> io::Result<(u32, u32)> {
    if local_address(fd)? == Address::Unix {
        return Ok((0, 0));
    }
    // SAFETY: all-zero is a valid tcp_info.
    let mut info: libc::tcp_info = unsafe { zeroed() };
    let mut length = length_of::<libc::tcp_info>();
    // SAFETY: `info` and `length` live through the call and agree with each other.
    check(unsafe {
        libc::getsockopt(
            fd,
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut length,
        )
    })?;
    Ok((info.tcpi_unacked, info.tcpi_sacked))
}

/// Drops on a listening TCP socket what begins a handshake, from now on and for all who share it: a segment with SYN and
/// without ACK. Handshakes that have begun go on, so that no client is reset whose connection is there already; one that
/// comes later is refused once the socket is closed, when it tries again after a second. Needs no privilege.
///
/// # Errors
/// setsockopt(2): not a socket, or forbidden.
pub fn refuse_handshakes(listener: RawFd) -> io::Result<()> {
    const FLAGS_OFFSET: u32 = 13;
    const SYN_AND_ACK: u32 = 0x12;
    const SYN: u32 = 0x02;
    let step = |code: u32, jump_else: u8, value: u32| libc::sock_filter {
        code: u16::try_from(code).unwrap_or(0),
        jt: 0,
        jf: jump_else,
        k: value,
    };
    let mut steps = [
        step(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, 0, FLAGS_OFFSET),
        step(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, 0, SYN_AND_ACK),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, SYN),
        step(libc::BPF_RET | libc::BPF_K, 0, 0),
        step(libc::BPF_RET | libc::BPF_K, 0, u32::MAX),
    ];
    let program = libc::sock_fprog { len: 5, filter: steps.as_mut_ptr() };
    // SAFETY: the program points to `steps`, of which it gives the length; the kernel copies them during the call.
    check(unsafe {
        libc::setsockopt(
            listener,
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            length_of::<libc::sock_fprog>(),
        )
    })?;
    Ok(())
}

/// Whether [`refuse_handshakes`] was called for this socket, here or in another process.
#[must_use]
pub fn refuses_handshakes(listener: RawFd) -> bool {
    let mut steps: libc::socklen_t = 0;
    // SAFETY: with length 0 the kernel writes nothing but the number of the filter's steps, to `steps`.
    let result = unsafe {
        libc::getsockopt(
            listener,
            libc::SOL_SOCKET,
            libc::SO_GET_FILTER,
            std::ptr::null_mut(),
            &raw mut steps,
        )
    };
    result == 0 && steps > 0
}
