//! UDP sockets as the engine wants them (design section 3, D4, D7): large receive buffers, kernel
//! timestamps, drop counts, the addressed address of every datagram, and groups of one socket a
//! shard, steered. The reactor receives and sends on them; `daemon` and `shard` bind them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::steering::{self, Steering};
use crate::sys;

/// Socket options.
#[derive(Clone, Debug)]
pub struct SocketOptions {
    /// SO_RCVBUF(FORCE) to ask for, in bytes; 0: the system's default. A 1332-byte datagram uses
    /// 2304 bytes of what is granted.
    pub receive_buffer: usize,
    /// SO_SNDBUF(FORCE) to ask for, in bytes; 0: the system's default.
    pub send_buffer: usize,
    /// SO_TIMESTAMPNS.
    pub timestamps: bool,
    /// UDP_GRO. The reactor then needs buffers of 64 KiB.
    pub gro: bool,
    /// Attach the steering program (else the kernel's hash decides).
    pub steering: bool,
}

impl Default for SocketOptions {
    /// 16 MiB to receive (design D7), 4 MiB to send, timestamps, steering, no GRO.
    fn default() -> Self {
        SocketOptions {
            receive_buffer: 16 << 20,
            send_buffer: 4 << 20,
            timestamps: true,
            gro: false,
            steering: true,
        }
    }
}

/// Why sockets could not be bound: says address, option and the command that mends it.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The port is in use (also by another engine's group).
    #[error(
        "{0} is in use by another process: `ss -ulnp 'sport = :{port}'` names it",
        port = .0.port()
    )]
    InUse(SocketAddr),
    /// Anything else.
    #[error("cannot {action} on {address}: {source}{}", remedy(.source, .address))]
    Os {
        /// What was tried.
        action: &'static str,
        /// For which address.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// There is no such network interface.
    #[error("no network interface {interface}: {source} (`ip address` lists them)")]
    Interface {
        /// Its name, or the address that it was to have.
        interface: String,
        /// What the kernel said.
        source: io::Error,
    },
}

fn remedy(source: &io::Error, address: &SocketAddr) -> String {
    match source.raw_os_error() {
        Some(libc::EACCES) if address.port() < 1024 => format!(
            " (ports below 1024 need `setcap cap_net_bind_service+ep` on the binary, or \
             `sysctl -w net.ipv4.ip_unprivileged_port_start={}`)",
            address.port()
        ),
        Some(libc::EADDRNOTAVAIL) => " (this host has no such address: see `ip address`)".into(),
        Some(libc::ENODEV) => " (no interface leads there: name one, see `ip route`)".into(),
        Some(libc::ENOBUFS) => " (too many groups or sources: raise \
             net.ipv4.igmp_max_memberships or net.ipv4.igmp_max_msf)"
            .into(),
        Some(libc::EMFILE) => " (raise the limit of open files: `ulimit -n 65536`)".into(),
        _ => String::new(),
    }
}

/// A bound UDP socket of ours. Sends never block; receiving is the reactor's.
#[derive(Debug)]
pub struct UdpSocket {
    /// `None`: closed.
    fd: Option<OwnedFd>,
    local: SocketAddr,
    connected: Option<SocketAddr>,
    granted_receive_buffer: usize,
    granted_send_buffer: usize,
}

impl UdpSocket {
    /// Binds one socket outside any group. Port 0 takes a free one; `[::]` is dual-stack.
    ///
    /// # Errors
    /// [`BindError`].
    pub fn bind_any(address: SocketAddr, options: &SocketOptions) -> Result<Self, BindError> {
        let socket = open(address, options)?;
        enable_packet_info(&socket, address)?;
        bind(&socket, address)?;
        UdpSocket::finish(socket, address, None)
    }

    /// The socket of callers that share one: a free port on every address, dual-stack where the
    /// host has IPv6, else IPv4 only.
    ///
    /// # Errors
    /// [`BindError`].
    pub fn bind_callers(options: &SocketOptions) -> Result<Self, BindError> {
        UdpSocket::bind_alone(SocketAddr::from(([0u16; 8], 0)), options)
    }

    /// One socket outside any group, where a host without IPv6 gives IPv4 alone for `[::]`.
    ///
    /// # Errors
    /// [`BindError`].
    pub fn bind_alone(address: SocketAddr, options: &SocketOptions) -> Result<Self, BindError> {
        match UdpSocket::bind_any(address, options) {
            Err(BindError::Os { source, .. }) if is_any_v6(address) && lacks_ipv6(&source) => {
                let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()));
                UdpSocket::bind_any(any, options)
            }
            result => result,
        }
    }

    /// A caller's socket: bound to a free port, connected to `peer`, so that only `peer` is heard
    /// and each send is spared its route look-up.
    ///
    /// # Errors
    /// [`BindError`].
    pub fn connect_to(peer: SocketAddr, options: &SocketOptions) -> Result<Self, BindError> {
        let any = match peer {
            SocketAddr::V4(_) => SocketAddr::from(([0u8; 4], 0)),
            SocketAddr::V6(_) => SocketAddr::from(([0u16; 8], 0)),
        };
        let socket = open(any, options)?;
        bind(&socket, any)?;
        socket
            .connect(&SockAddr::from(peer))
            .map_err(os("connect", peer))?;
        UdpSocket::finish(socket, any, Some(peer))
    }

    /// Where it is bound.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// The peer it is connected to.
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.connected
    }

    /// SO_RCVBUF that the kernel granted (as it reports it: twice the asked size counts).
    pub fn granted_receive_buffer(&self) -> usize {
        self.granted_receive_buffer
    }

    /// SO_SNDBUF that the kernel granted, as it reports it.
    pub fn granted_send_buffer(&self) -> usize {
        self.granted_send_buffer
    }

    /// Datagrams the kernel dropped at this socket since it was made (`SO_MEMINFO`). One system
    /// call; exact also when nothing arrives any more, unlike
    /// [`SocketCounters::kernel_drops`](crate::SocketCounters).
    pub fn kernel_drops(&self) -> u32 {
        sys::socket_drops(self.as_raw_fd()).unwrap_or(0)
    }

    /// Closes it. It keeps its place among the others of its reactor, whose numbers stay.
    pub(crate) fn close(&mut self) {
        self.fd = None;
    }

    /// Whether it is closed.
    pub(crate) const fn is_closed(&self) -> bool {
        self.fd.is_none()
    }

    /// Whether it speaks IPv6 addresses to the kernel (a dual-stack socket does for IPv4 too).
    pub(crate) const fn is_v6(&self) -> bool {
        self.local.is_ipv6()
    }

    /// Whether the kernel knows UDP_SEGMENT (Linux 4.18).
    pub(crate) fn segments(&self) -> bool {
        sys::int_option(self.as_raw_fd(), libc::SOL_UDP, sys::UDP_SEGMENT).is_ok()
    }

    /// Whether replies need their source address told.
    pub(crate) fn is_wildcard(&self) -> bool {
        self.local.ip().is_unspecified()
    }

    /// The address that everything received on it was sent to, unless it is a wildcard.
    pub(crate) fn own_address(&self) -> Option<IpAddr> {
        (!self.is_wildcard()).then(|| self.local.ip().to_canonical())
    }

    pub(crate) fn finish(
        socket: Socket,
        address: SocketAddr,
        connected: Option<SocketAddr>,
    ) -> Result<Self, BindError> {
        let fd = socket.as_raw_fd();
        let granted = |name| {
            let bytes = sys::int_option(fd, libc::SOL_SOCKET, name).map_err(os("inspect", address));
            bytes.map(|bytes| usize::try_from(bytes).unwrap_or(0))
        };
        let (receive, send) = (granted(libc::SO_RCVBUF)?, granted(libc::SO_SNDBUF)?);
        let local = socket.local_addr().map_err(os("inspect", address))?;
        Ok(UdpSocket {
            local: local.as_socket().unwrap_or(address),
            connected,
            granted_receive_buffer: receive,
            granted_send_buffer: send,
            fd: Some(socket.into()),
        })
    }
}

impl AsRawFd for UdpSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_ref().map_or(-1, AsRawFd::as_raw_fd)
    }
}

/// Binds one socket a shard to `listen`, in bind order = shard order, steered. The first is bound
/// without SO_REUSEPORT, so that a port in use is an error instead of a group joined silently.
/// `[::]` is dual-stack; a host without IPv6 gets 0.0.0.0 (and `true` in the second value: "fell
/// back to IPv4"). Port 0 takes a free one.
///
/// No member may be closed before the process ends: the kernel would move the last one into its
/// place (design D4).
///
/// # Errors
/// [`BindError`].
pub fn bind_group(
    listen: SocketAddr,
    shards: usize,
    steering: Steering,
    options: &SocketOptions,
) -> Result<(Vec<UdpSocket>, bool), BindError> {
    match bind_members(listen, shards, steering, options) {
        Err(BindError::Os { source, .. }) if is_any_v6(listen) && lacks_ipv6(&source) => {
            let listen = SocketAddr::from((Ipv4Addr::UNSPECIFIED, listen.port()));
            bind_members(listen, shards, steering, options).map(|group| (group, true))
        }
        result => result.map(|group| (group, false)),
    }
}

fn is_any_v6(address: SocketAddr) -> bool {
    matches!(address.ip(), IpAddr::V6(address) if address.is_unspecified())
}

fn lacks_ipv6(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)
    )
}

fn bind_members(
    listen: SocketAddr,
    shards: usize,
    steering: Steering,
    options: &SocketOptions,
) -> Result<Vec<UdpSocket>, BindError> {
    let first = open(listen, options)?;
    enable_packet_info(&first, listen)?;
    // The first member is its own probe: bound without SO_REUSEPORT it fails if anybody, a group
    // of the same user included, holds the port. The option set afterwards lets ours join; the
    // kernel makes the group then, with the first at index 0.
    bind(&first, listen)?;
    let shards = shards.max(1);
    if shards > 1 {
        first
            .set_reuse_port(true)
            .map_err(os("set SO_REUSEPORT", listen))?;
    }
    let mut group = vec![UdpSocket::finish(first, listen, None)?];
    let mut address = listen;
    address.set_port(group[0].local_addr().port());
    for _ in 1..shards {
        let member = open(address, options)?;
        enable_packet_info(&member, address)?;
        member
            .set_reuse_port(true)
            .map_err(os("set SO_REUSEPORT", address))?;
        bind(&member, address)?;
        group.push(UdpSocket::finish(member, address, None)?);
    }
    if shards > 1 && options.steering {
        let program = steering::program(steering, u32::try_from(shards).unwrap_or(u32::MAX));
        attach(&group[0], &program).map_err(os("attach the steering program", address))?;
    }
    Ok(group)
}

fn attach(socket: &UdpSocket, program: &[libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: program.len() as u16,
        // The kernel copies the program during the call and does not write to it.
        filter: program.as_ptr().cast_mut(),
    };
    sys::set_option(
        socket.as_raw_fd(),
        libc::SOL_SOCKET,
        sys::SO_ATTACH_REUSEPORT_CBPF,
        &program,
    )
}

pub(crate) fn os(action: &'static str, address: SocketAddr) -> impl FnOnce(io::Error) -> BindError {
    move |source| BindError::Os {
        action,
        address,
        source,
    }
}

pub(crate) fn bind(socket: &Socket, address: SocketAddr) -> Result<(), BindError> {
    socket
        .bind(&SockAddr::from(address))
        .map_err(|source| match source.raw_os_error() {
            Some(libc::EADDRINUSE) => BindError::InUse(address),
            _ => BindError::Os {
                action: "bind",
                address,
                source,
            },
        })
}

/// Asks for the addressed address of every datagram, where the socket's own does not tell it:
/// what is bound to one address (or connected from one) is spared the cost.
fn enable_packet_info(socket: &Socket, address: SocketAddr) -> Result<(), BindError> {
    let (level, name) = match address {
        _ if !address.ip().is_unspecified() => return Ok(()),
        SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_PKTINFO),
        SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO),
    };
    sys::set_option(socket.as_raw_fd(), level, name, &1i32).map_err(os("set PKTINFO", address))
}

/// A socket of `address`'s family with everything set but its address.
///
/// It is left in blocking mode: the ring wants that (its requests would otherwise fail with
/// EAGAIN on older kernels instead of waiting), and every send says MSG_DONTWAIT.
pub(crate) fn open(address: SocketAddr, options: &SocketOptions) -> Result<Socket, BindError> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::DGRAM,
        Some(Protocol::UDP),
    )
    .map_err(os("open a UDP socket", address))?;
    let fd = socket.as_raw_fd();
    let on = |level, name| sys::set_option(fd, level, name, &1i32);
    if address.is_ipv6() {
        socket
            .set_only_v6(!address.ip().is_unspecified())
            .map_err(os("set IPV6_V6ONLY", address))?;
        // Since 4.20; where it is missing there are no IPv6 groups to be protected from either.
        let _ = sys::set_option(fd, libc::IPPROTO_IPV6, sys::IPV6_MULTICAST_ALL, &0i32);
    }
    // Else every wildcard member would get the groups that other sockets of the host joined.
    sys::set_option(fd, libc::IPPROTO_IP, sys::IP_MULTICAST_ALL, &0i32)
        .map_err(os("clear IP_MULTICAST_ALL", address))?;
    on(libc::SOL_SOCKET, libc::SO_RXQ_OVFL).map_err(os("set SO_RXQ_OVFL", address))?;
    if options.timestamps {
        on(libc::SOL_SOCKET, libc::SO_TIMESTAMPNS).map_err(os("set SO_TIMESTAMPNS", address))?;
    }
    if options.gro {
        on(libc::SOL_UDP, sys::UDP_GRO).map_err(os("set UDP_GRO (Linux 5.0)", address))?;
    }
    set_buffer(
        fd,
        libc::SO_RCVBUFFORCE,
        libc::SO_RCVBUF,
        options.receive_buffer,
    )
    .map_err(os("set SO_RCVBUF", address))?;
    set_buffer(
        fd,
        libc::SO_SNDBUFFORCE,
        libc::SO_SNDBUF,
        options.send_buffer,
    )
    .map_err(os("set SO_SNDBUF", address))?;
    Ok(socket)
}

/// Asks for a buffer beyond `net.core.*mem_max` where we are privileged, else for what that
/// grants. The kernel doubles the figure, so half of `i32::MAX` is the most.
fn set_buffer(fd: RawFd, force: i32, plain: i32, bytes: usize) -> io::Result<()> {
    if bytes == 0 {
        return Ok(());
    }
    let bytes = i32::try_from(bytes).unwrap_or(i32::MAX).min(i32::MAX / 2);
    sys::set_option(fd, libc::SOL_SOCKET, force, &bytes)
        .or_else(|_| sys::set_option(fd, libc::SOL_SOCKET, plain, &bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_wildcard_on_a_host_without_ipv6_falls_back() {
        let error = |errno| lacks_ipv6(&io::Error::from_raw_os_error(errno));
        assert!(error(libc::EAFNOSUPPORT) && error(libc::EADDRNOTAVAIL));
        assert!(!error(libc::EACCES) && !error(libc::EMFILE));
        assert!(is_any_v6("[::]:30000".parse().unwrap()));
        assert!(!is_any_v6("[::1]:30000".parse().unwrap()));
        assert!(!is_any_v6("0.0.0.0:30000".parse().unwrap()));
    }

    #[test]
    fn errors_say_address_action_and_remedy() {
        let address = "0.0.0.0:500".parse().unwrap();
        let source = io::Error::from_raw_os_error(libc::EACCES);
        let text = BindError::Os {
            action: "bind",
            address,
            source,
        }
        .to_string();
        for part in ["bind", "0.0.0.0:500", "ip_unprivileged_port_start=500"] {
            assert!(text.contains(part), "{text}");
        }
        let text = BindError::InUse(address).to_string();
        assert!(
            text.contains("0.0.0.0:500") && text.contains("sport = :500"),
            "{text}"
        );
    }
}
