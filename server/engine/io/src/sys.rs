//! The system calls of the engine, each as one safe function; the only unsafe code of this crate beside `stats`.
//!
//! Everything here is non-blocking unless its name says `wait`. `EINTR` never reaches a caller.

use std::io;
use std::mem::{size_of, zeroed};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

/// One readiness report: `data` is what [`Epoll::add`] was given.
pub type Event = libc::epoll_event;

/// Readable, or the peer ended its side.
pub const READ: u32 = (libc::EPOLLIN | libc::EPOLLRDHUP).cast_unsigned();
/// The peer ended its side.
pub const PEER_ENDED: u32 = libc::EPOLLRDHUP.cast_unsigned();
/// Writable.
pub const WRITE: u32 = libc::EPOLLOUT.cast_unsigned();
/// Report changes only.
pub const EDGE: u32 = libc::EPOLLET.cast_unsigned();
/// The connection is broken in both directions.
pub const BROKEN: u32 = (libc::EPOLLHUP | libc::EPOLLERR).cast_unsigned();

/// An event that says nothing, to fill a batch with.
pub const NO_EVENT: Event = Event { events: 0, u64: 0 };

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn check_size(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// Size of a `T` as the socket calls want it.
fn length_of<T>() -> libc::socklen_t {
    libc::socklen_t::try_from(size_of::<T>()).unwrap_or(0)
}

/// Calls again as long as a signal interrupts.
fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// Microseconds of `CLOCK_MONOTONIC`: the same clock in every process of the machine.
#[must_use]
pub fn monotonic_us() -> u64 {
    clock_us(libc::CLOCK_MONOTONIC)
}

/// Microseconds since 1970 UTC.
#[must_use]
pub fn wall_us() -> u64 {
    clock_us(libc::CLOCK_REALTIME)
}

#[allow(clippy::cast_sign_loss)] // both clocks are positive on Linux
fn clock_us(clock: libc::clockid_t) -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a valid timespec for the duration of the call; the clocks named above always exist.
    unsafe { libc::clock_gettime(clock, &raw mut now) };
    now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1000
}

/// An epoll instance.
pub struct Epoll(OwnedFd);

impl Epoll {
    /// # Errors
    /// The process is out of descriptors.
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointer is passed; the result, when not negative, is a new descriptor that nobody else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(check(libc::epoll_create1(libc::EPOLL_CLOEXEC))?) };
        Ok(Self(fd))
    }

    fn control(&self, operation: libc::c_int, fd: RawFd, events: u32, data: u64) -> io::Result<()> {
        let mut event = Event { events, u64: data };
        // SAFETY: `event` lives through the call; the kernel copies it.
        check(unsafe { libc::epoll_ctl(self.0.as_raw_fd(), operation, fd, &raw mut event) })?;
        Ok(())
    }

    /// The descriptor, to wait on: readable while it has events.
    #[must_use]
    pub fn raw(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// Whether there are events to take.
    #[must_use]
    pub fn has_events(&self) -> bool {
        wait_for(self.raw(), Direction::Read, Duration::ZERO).unwrap_or(false)
    }

    /// # Errors
    /// `EEXIST`, `ENOMEM`, `ENOSPC`.
    pub fn add(&self, fd: RawFd, events: u32, data: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd, events, data)
    }

    /// Changes the interest; what is ready now is reported again, edge-triggered or not.
    ///
    /// # Errors
    /// `ENOENT` when the descriptor was removed.
    pub fn modify(&self, fd: RawFd, events: u32, data: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, fd, events, data)
    }

    /// Forgets `fd`; one that is not there is no error.
    pub fn remove(&self, fd: RawFd) {
        let _ = self.control(libc::EPOLL_CTL_DEL, fd, 0, 0);
    }

    /// Fills `events` from the front; returns how many. `None` waits for ever, zero does not wait.
    /// A signal ends the wait with 0.
    ///
    /// # Errors
    /// None that a correct program meets.
    pub fn wait(&self, events: &mut [Event], timeout: Option<Duration>) -> io::Result<usize> {
        let timeout_ms = timeout.map_or(-1, |t| {
            // Rounded up: a wait that ends just before its deadline would spin.
            i32::try_from(t.as_micros().div_ceil(1000)).unwrap_or(i32::MAX)
        });
        let capacity = i32::try_from(events.len()).unwrap_or(i32::MAX);
        // SAFETY: the kernel writes at most `capacity` events to the slice.
        let result = unsafe {
            libc::epoll_wait(self.0.as_raw_fd(), events.as_mut_ptr(), capacity, timeout_ms)
        };
        match check(result) {
            Ok(count) => Ok(usize::try_from(count).unwrap_or(0)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
            Err(error) => Err(error),
        }
    }
}

/// An eventfd: something to wake an epoll wait with, from any thread.
pub struct Bell(OwnedFd);

impl Bell {
    /// # Errors
    /// The process is out of descriptors.
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointer is passed; the result is a new descriptor that nobody else owns.
        let fd = unsafe {
            OwnedFd::from_raw_fd(check(libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK))?)
        };
        Ok(Self(fd))
    }

    /// Makes it readable.
    pub fn ring(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: the buffer has the eight bytes an eventfd wants. A full counter (EAGAIN) is readable anyway.
        unsafe { libc::write(self.0.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }

    /// Makes it unreadable.
    pub fn hush(&self) {
        let mut count = [0u8; 8];
        // SAFETY: the buffer has the eight bytes an eventfd wants.
        unsafe { libc::read(self.0.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
    }

    /// The descriptor, to wait on.
    #[must_use]
    pub fn raw(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// One side of a connection or listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// TCP: an IPv4-mapped IPv6 address is given as IPv4.
    Ip(IpAddr, u16),
    /// A unix socket.
    Unix,
}

fn address_of(storage: &libc::sockaddr_storage) -> Address {
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

/// # Errors
/// Not an open descriptor.
pub fn set_nonblocking(fd: RawFd) -> io::Result<()> {
    // SAFETY: no pointers.
    let flags = check(unsafe { libc::fcntl(fd, libc::F_GETFL) })?;
    // SAFETY: no pointers.
    check(unsafe { libc::fcntl(fd, libc::F_SETFL, flags | libc::O_NONBLOCK) })?;
    Ok(())
}

/// A second, close-on-exec descriptor of the same thing.
///
/// # Errors
/// Not open, or out of descriptors.
pub fn duplicate(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: no pointers; the result is a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(check(libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3))?) })
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

/// Sends at most `length` bytes of `file` from `offset`, which moves on; 0 is the end of the file.
///
/// # Errors
/// `WouldBlock` when nothing fits; `InvalidInput` for a descriptor that cannot be sent; else sendfile(2).
pub fn send_file(fd: RawFd, file: RawFd, offset: &mut i64, length: usize) -> io::Result<usize> {
    // SAFETY: `offset` lives through the call. sendfile has no flag against SIGPIPE: CPython ignores that signal,
    // and `Server::new` makes sure of it.
    retry(|| check_size(unsafe { libc::sendfile(fd, file, offset, length) }))
}

/// Bytes given to the kernel that the other side has not acknowledged (`SIOCOUTQ`); 0 where that is unknown.
#[must_use]
pub fn unacknowledged(fd: RawFd) -> u64 {
    let mut count: libc::c_int = 0;
    // SAFETY: the kernel writes one int to `count`, which lives through the call.
    let result = unsafe { libc::ioctl(fd, libc::TIOCOUTQ, &raw mut count) };
    if result == 0 { u64::try_from(count).unwrap_or(0) } else { 0 }
}

/// Has the kernel read no more of a file ahead than is asked for. Where it reads ahead megabytes (8 MiB on some machines),
/// one small piece of a file that is not in memory would take tens of milliseconds.
pub fn read_no_further(file: RawFd) {
    // SAFETY: no pointers. It is advice: a failure changes nothing.
    unsafe { libc::posix_fadvise(file, 0, 0, libc::POSIX_FADV_RANDOM) };
}

/// Ignores SIGPIPE, which sendfile(2) cannot be told to leave out.
pub fn ignore_sigpipe() {
    // SAFETY: SIG_IGN installs no handler code.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
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

/// Whether `fd` is a regular file: appending to it is atomic at any size.
#[must_use]
pub fn is_regular_file(fd: RawFd) -> bool {
    // SAFETY: all-zero is a valid value of this plain struct.
    let mut status: libc::stat = unsafe { zeroed() };
    // SAFETY: `status` lives through the call.
    let result = unsafe { libc::fstat(fd, &raw mut status) };
    result == 0 && status.st_mode & libc::S_IFMT == libc::S_IFREG
}

/// Writes all of `bytes` to a file, pipe or terminal, waiting as long as that takes.
///
/// # Errors
/// write(2).
pub fn write_all_wait(fd: RawFd, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        // SAFETY: the kernel reads at most `bytes.len()` bytes of the slice.
        let result =
            retry(|| check_size(unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) }));
        match result {
            Ok(count) => bytes = &bytes[count..],
            // Somebody made the log's pipe non-blocking.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                wait_for(fd, Direction::Write, Duration::from_secs(1))?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// What to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Bytes to read, or the end.
    Read,
    /// Room to write.
    Write,
}

/// Waits until `fd` is ready or broken; false when `timeout` went by.
///
/// # Errors
/// poll(2).
pub fn wait_for(fd: RawFd, direction: Direction, timeout: Duration) -> io::Result<bool> {
    let events = match direction {
        Direction::Read => libc::POLLIN,
        Direction::Write => libc::POLLOUT,
    };
    let end_us =
        monotonic_us().saturating_add(u64::try_from(timeout.as_micros()).unwrap_or(u64::MAX));
    loop {
        let left_ms = end_us.saturating_sub(monotonic_us()).div_ceil(1000);
        let mut poll = libc::pollfd { fd, events, revents: 0 };
        // SAFETY: one pollfd, which lives through the call.
        let result =
            unsafe { libc::poll(&raw mut poll, 1, i32::try_from(left_ms).unwrap_or(i32::MAX)) };
        match check(result) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
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

/// Makes this process the parent of its orphaned descendants (`prctl(2)`, `PR_SET_CHILD_SUBREAPER`).
///
/// # Errors
/// The kernel refuses.
pub fn set_child_subreaper() -> io::Result<()> {
    // SAFETY: this prctl takes no pointers.
    check(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) })?;
    Ok(())
}

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
