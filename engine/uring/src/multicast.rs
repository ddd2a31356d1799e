//! Sockets of multicast groups: bound to the group's address, so that a port can be shared by
//! many, and joined for every sender (RFC 1112, 3376) or for named ones alone (SSM, RFC 4607),
//! on a chosen interface. The source filter is the kernel's: what others send to the group
//! never wakes a shard. `shard` opens them for configured RTP sessions.

use std::ffi::{CStr, CString};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;

use socket2::Socket;

use crate::socket::{BindError, SocketOptions, UdpSocket, bind, open, os};
use crate::sys;

/// linux/in.h; the same for IPv6.
const MCAST_JOIN_GROUP: i32 = 42;
const MCAST_JOIN_SOURCE_GROUP: i32 = 46;

/// An interface of the host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NetworkInterface<'a> {
    /// "eth1".
    Name(&'a str),
    /// The one that has this address.
    Address(IpAddr),
}

impl std::fmt::Display for NetworkInterface<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            NetworkInterface::Name(name) => f.write_str(name),
            NetworkInterface::Address(address) => address.fmt(f),
        }
    }
}

impl NetworkInterface<'_> {
    /// Its index.
    fn index(&self) -> io::Result<u32> {
        match self {
            NetworkInterface::Name(name) => {
                let name = CString::new(*name).map_err(io::Error::other)?;
                index_of(&name)
            }
            NetworkInterface::Address(address) => index_with(*address),
        }
    }
}

fn index_of(name: &CStr) -> io::Result<u32> {
    // SAFETY: a string that ends with a zero byte.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(io::Error::last_os_error()),
        index => Ok(index),
    }
}

/// The interface that has `wanted` among its addresses.
fn index_with(wanted: IpAddr) -> io::Result<u32> {
    let mut first = std::ptr::null_mut();
    // SAFETY: on success the list's head is in `first`, until freeifaddrs() below.
    if unsafe { libc::getifaddrs(&raw mut first) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut found = Err(io::Error::from_raw_os_error(libc::EADDRNOTAVAIL));
    let mut next = first;
    while !next.is_null() {
        // SAFETY: an entry of the list, which is not freed yet.
        let entry = unsafe { &*next };
        // SAFETY: the address of an entry is null or a whole sockaddr of its family.
        if unsafe { address_of(entry.ifa_addr) } == Some(wanted) {
            // SAFETY: an interface's name ends with a zero byte, and lives as long as the list.
            found = index_of(unsafe { CStr::from_ptr(entry.ifa_name) });
            break;
        }
        next = entry.ifa_next;
    }
    // SAFETY: what getifaddrs() gave; nothing of it is kept.
    unsafe { libc::freeifaddrs(first) };
    found
}

/// # Safety
/// `address` is null, or points to a sockaddr as long as its family asks for.
unsafe fn address_of(address: *const libc::sockaddr) -> Option<IpAddr> {
    if address.is_null() {
        return None;
    }
    // SAFETY: not null, and at least a sockaddr's family.
    match i32::from(unsafe { (*address).sa_family }) {
        libc::AF_INET => {
            // SAFETY: the family says so.
            let v4 = unsafe { &*address.cast::<libc::sockaddr_in>() };
            Some(IpAddr::from(v4.sin_addr.s_addr.to_ne_bytes()))
        }
        libc::AF_INET6 => {
            // SAFETY: the family says so.
            let v6 = unsafe { &*address.cast::<libc::sockaddr_in6>() };
            Some(IpAddr::from(v6.sin6_addr.s6_addr))
        }
        _ => None,
    }
}

/// `struct group_source_req` of linux/in.h; without its last field it is `struct group_req`.
#[repr(C)]
#[derive(Clone, Copy)]
struct GroupSourceRequest {
    interface: u32,
    group: StoredAddress,
    source: StoredAddress,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct GroupRequest {
    interface: u32,
    group: StoredAddress,
}

/// `struct sockaddr_storage`.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct StoredAddress([u8; 128]);

impl From<IpAddr> for StoredAddress {
    fn from(ip: IpAddr) -> Self {
        let mut bytes = [0; 128];
        match ip {
            IpAddr::V4(ip) => {
                bytes[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
                bytes[4..8].copy_from_slice(&ip.octets());
            }
            IpAddr::V6(ip) => {
                bytes[..2].copy_from_slice(&(libc::AF_INET6 as u16).to_ne_bytes());
                bytes[8..24].copy_from_slice(&ip.octets());
            }
        }
        StoredAddress(bytes)
    }
}

impl UdpSocket {
    /// Binds one socket to a group and its port, and joins the group: for `sources`, or for
    /// everybody when there are none; on `interface`, or where the routes lead. Others may be
    /// bound to the same: each gets what it has joined.
    ///
    /// # Errors
    /// [`BindError`].
    pub fn bind_group_address(
        group: SocketAddr,
        sources: &[IpAddr],
        interface: Option<NetworkInterface<'_>>,
        options: &SocketOptions,
    ) -> Result<Self, BindError> {
        let index = match interface {
            None => 0,
            Some(interface) => interface.index().map_err(|source| BindError::Interface {
                interface: interface.to_string(),
                source,
            })?,
        };
        let socket = open(group, options)?;
        socket
            .set_reuse_address(true)
            .map_err(os("set SO_REUSEADDR", group))?;
        let mut at = group;
        if let SocketAddr::V6(at) = &mut at {
            // Groups of one link (ff02::/16) are bound on that link.
            at.set_scope_id(index);
        }
        bind(&socket, at)?;
        join(&socket, group, sources, index).map_err(os("join the multicast group", group))?;
        UdpSocket::finish(socket, group, None)
    }
}

fn join(socket: &Socket, group: SocketAddr, sources: &[IpAddr], interface: u32) -> io::Result<()> {
    let level = if group.is_ipv4() {
        libc::IPPROTO_IP
    } else {
        libc::IPPROTO_IPV6
    };
    let (fd, to) = (socket.as_raw_fd(), StoredAddress::from(group.ip()));
    if sources.is_empty() {
        let request = GroupRequest {
            interface,
            group: to,
        };
        return sys::set_option(fd, level, MCAST_JOIN_GROUP, &request);
    }
    sources.iter().try_for_each(|source| {
        let request = GroupSourceRequest {
            interface,
            group: to,
            source: StoredAddress::from(*source),
        };
        sys::set_option(fd, level, MCAST_JOIN_SOURCE_GROUP, &request)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_have_the_kernels_layout() {
        assert_eq!(size_of::<GroupRequest>(), 136);
        assert_eq!(size_of::<GroupSourceRequest>(), 264);
        assert_eq!(std::mem::offset_of!(GroupSourceRequest, group), 8);
        assert_eq!(std::mem::offset_of!(GroupSourceRequest, source), 136);
        assert_eq!(
            size_of::<libc::sockaddr_storage>(),
            size_of::<StoredAddress>()
        );
    }

    #[test]
    #[cfg_attr(miri, ignore = "needs a kernel")]
    fn interfaces_are_found_by_name_and_by_address() {
        let by_name = NetworkInterface::Name("lo").index().unwrap();
        let by_address = NetworkInterface::Address("127.0.0.1".parse().unwrap());
        assert_eq!(by_address.index().unwrap(), by_name);
        assert!(NetworkInterface::Name("no-such-nic").index().is_err());
        let nobodys = NetworkInterface::Address("192.0.2.254".parse().unwrap());
        assert!(nobodys.index().is_err());
    }
}
