//! Connected sockets: their addresses, what goes in and out.

use std::io;
use std::mem::zeroed;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::RawFd;

use super::errno::{check, check_size, length_of, retry};

/// One side of a connection or listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// TCP: an IPv4-mapped IPv6 address is given as IPv4.
    Ip(IpAddr, u16),
    /// A unix socket.
    Unix,
}

pub(super) fn address_of(storage: &libc::sockaddr_storage) -> Address {
    match i32::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says that the kernel wrote a sockaddr_in; sockaddr_storage is large and aligned
            // enough for every address family.
            let v4 = unsafe { &*std::ptr::from_ref(storage).cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
            Address::Ip(IpAddr::V4(ip), u16::from_be(v4.sin_port))
        }
        libc::AF_INET6 => {
            // SAFETY: as above, for sockaddr_in6.
            let v6 = unsafe { &*std::ptr::from_ref(storage).cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr).to_canonical();
            Address::Ip(ip, u16::from_be(v6.sin6_port))
        }
        _ => Address::Unix,
    }
}

fn name_by(
    call: unsafe extern "C" fn(
        libc::c_int,
        *mut libc::sockaddr,
        *mut libc::socklen_t,
    ) -> libc::c_int,
    fd: RawFd,
) -> io::Result<Address> {
    // SAFETY: all-zero is a valid sockaddr_storage.
    let mut storage: libc::sockaddr_storage = unsafe { zeroed() };
    let mut length = length_of::<libc::sockaddr_storage>();
    // SAFETY: both callers pass getsockname or getpeername; the pointers live through the call and agree.
    check(unsafe { call(fd, (&raw mut storage).cast(), &raw mut length) })?;
    Ok(address_of(&storage))
}

/// The near side of a socket.
///
/// # Errors
/// Not a socket.
pub fn local_address(fd: RawFd) -> io::Result<Address> {
    name_by(libc::getsockname, fd)
}

/// The far side of a socket.
///
/// # Errors
/// Not a connected socket.
pub fn peer_address(fd: RawFd) -> io::Result<Address> {
    name_by(libc::getpeername, fd)
}

/// Sends small answers at once (`TCP_NODELAY`); on a unix socket it does nothing.
pub fn set_no_delay(fd: RawFd) {
    let on: libc::c_int = 1;
    // SAFETY: `on` lives through the call and has the length given. An error leaves a slower but right socket.
    unsafe {
        libc::setsockopt(
            fd,
            libc::IPPROTO_TCP,
            libc::TCP_NODELAY,
            (&raw const on).cast(),
            length_of::<libc::c_int>(),
        )
    };
}

/// Acknowledges at once what has been received (`TCP_QUICKACK`); on a unix socket it does nothing.
///
/// A client that sends head and body apart without `TCP_NODELAY`, as nginx does with a body that it keeps in a file,
/// holds back the rest until the first part is acknowledged (Nagle). The kernel waits up to 40 ms with that, hoping to
/// send it along with an answer; while a request is incomplete there is none.
pub fn acknowledge(fd: RawFd) {
    let on: libc::c_int = 1;
    // SAFETY: `on` lives through the call and has the length given. An error leaves a slower but right socket.
    unsafe {
        libc::setsockopt(
            fd,
            libc::IPPROTO_TCP,
            libc::TCP_QUICKACK,
            (&raw const on).cast(),
            length_of::<libc::c_int>(),
        )
    };
}

/// Reads what is there into the front of `into`; 0 is the end.
///
/// # Errors
/// `WouldBlock` when nothing is there; else recv(2).
pub fn receive(fd: RawFd, into: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the kernel writes at most `into.len()` bytes to the slice.
    retry(|| check_size(unsafe { libc::recv(fd, into.as_mut_ptr().cast(), into.len(), 0) }))
}

/// Writes what fits; returns how much.
///
/// # Errors
/// `WouldBlock` when nothing fits; else send(2). Never SIGPIPE.
pub fn send(fd: RawFd, bytes: &[u8]) -> io::Result<usize> {
    retry(|| {
        // SAFETY: the kernel reads at most `bytes.len()` bytes of the slice.
        check_size(unsafe {
            libc::send(fd, bytes.as_ptr().cast(), bytes.len(), libc::MSG_NOSIGNAL)
        })
    })
}

/// Writes what fits of two pieces, one after the other; returns how much in all.
///
/// # Errors
/// As [`send`].
pub fn send_two(fd: RawFd, first: &[u8], second: &[u8]) -> io::Result<usize> {
    let mut pieces = [
        libc::iovec { iov_base: first.as_ptr().cast_mut().cast(), iov_len: first.len() },
        libc::iovec { iov_base: second.as_ptr().cast_mut().cast(), iov_len: second.len() },
    ];
    // SAFETY: all-zero is a valid msghdr: no address, no control data.
    let mut message: libc::msghdr = unsafe { zeroed() };
    message.msg_iov = pieces.as_mut_ptr();
    message.msg_iovlen = pieces.len();
    // SAFETY: the message points to `pieces`, and these to the two slices; the kernel only reads.
    retry(|| check_size(unsafe { libc::sendmsg(fd, &raw const message, libc::MSG_NOSIGNAL) }))
}

/// Bytes given to the kernel that the other side has not acknowledged (`SIOCOUTQ`); 0 where that is unknown.
#[must_use]
pub fn unacknowledged(fd: RawFd) -> u64 {
    let mut count: libc::c_int = 0;
    // SAFETY: the kernel writes one int to `count`, which lives through the call.
    let result = unsafe { libc::ioctl(fd, libc::TIOCOUTQ, &raw mut count) };
    if result == 0 { u64::try_from(count).unwrap_or(0) } else { 0 }
}

/// Says "no more from me"; a broken connection is no error.
pub fn shut_down_write(fd: RawFd) {
    // SAFETY: no pointers.
    unsafe { libc::shutdown(fd, libc::SHUT_WR) };
}

/// Ends both directions, also for copies of the socket that a child of the app may hold.
pub fn shut_down(fd: RawFd) {
    // SAFETY: no pointers.
    unsafe { libc::shutdown(fd, libc::SHUT_RDWR) };
}
