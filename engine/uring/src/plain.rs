//! A plain `recvmmsg` loop's one call: the benchmark's lower bound. It shares no code with the
//! reactor, so that the floor does not inherit what the reactor might do badly. Control messages
//! (timestamp, packet info, drop count) are received, as the socket's options ask for them, and
//! not looked at.

use std::io;
use std::os::fd::AsRawFd;

/// Room for one datagram.
const BUFFER_BYTES: usize = 2048;
/// Room for its control messages.
const CONTROL_BYTES: usize = 128;

/// Buffers for a batch of datagrams.
pub struct PlainReceiver {
    headers: Vec<libc::mmsghdr>,
    /// What the headers point to: never resized.
    _iovecs: Box<[libc::iovec]>,
    buffers: Box<[u8]>,
    _controls: Box<[u64]>,
    _names: Box<[libc::sockaddr_storage]>,
    received: usize,
}

impl std::fmt::Debug for PlainReceiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PlainReceiver")
            .field("batch", &self.headers.len())
            .field("received", &self.received)
            .finish_non_exhaustive()
    }
}

impl PlainReceiver {
    /// Buffers for `batch` datagrams a call.
    pub fn new(batch: usize) -> Self {
        let mut buffers = vec![0u8; batch * BUFFER_BYTES].into_boxed_slice();
        let mut controls = vec![0u64; batch * CONTROL_BYTES / 8].into_boxed_slice();
        // SAFETY: sockaddr_storage is plain data for which all zeros is a value.
        let empty_name: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
        let mut names = vec![empty_name; batch].into_boxed_slice();
        let mut iovecs: Box<[libc::iovec]> = buffers
            .chunks_exact_mut(BUFFER_BYTES)
            .map(|buffer| libc::iovec {
                iov_base: buffer.as_mut_ptr().cast(),
                iov_len: BUFFER_BYTES,
            })
            .collect();
        let headers = iovecs
            .iter_mut()
            .zip(names.iter_mut())
            .zip(controls.chunks_exact_mut(CONTROL_BYTES / 8))
            .map(|((iovec, name), control)| {
                // SAFETY: mmsghdr is plain data for which all zeros is a value.
                let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
                header.msg_hdr.msg_iov = iovec;
                header.msg_hdr.msg_iovlen = 1;
                header.msg_hdr.msg_name = std::ptr::from_mut(name).cast();
                header.msg_hdr.msg_control = control.as_mut_ptr().cast();
                header
            })
            .collect();
        PlainReceiver {
            headers,
            _iovecs: iovecs,
            buffers,
            _controls: controls,
            _names: names,
            received: 0,
        }
    }

    /// Receives what has arrived, at most a batch, without waiting; returns how many.
    ///
    /// # Errors
    /// What the kernel says, other than that nothing has arrived.
    pub fn receive(&mut self, socket: &impl AsRawFd) -> io::Result<usize> {
        for header in self.headers.iter_mut().take(self.received) {
            header.msg_hdr.msg_flags = 0;
        }
        for header in &mut self.headers {
            header.msg_hdr.msg_controllen = CONTROL_BYTES;
            header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
        }
        let fd = socket.as_raw_fd();
        let count = libc::c_uint::try_from(self.headers.len()).unwrap_or(libc::c_uint::MAX);
        self.received = 0;
        // SAFETY: every header points to one iovec, one name and one control area that `self` owns
        // on the heap, of the lengths given; `count` is the number of headers; a null timeout is
        // allowed. The kernel writes during the call only, while `self` is borrowed mutably.
        let n = unsafe {
            libc::recvmmsg(
                fd,
                self.headers.as_mut_ptr(),
                count,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        if n < 0 {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::WouldBlock {
                Ok(0)
            } else {
                Err(error)
            };
        }
        self.received = usize::try_from(n).unwrap_or(0);
        Ok(self.received)
    }

    /// Datagram `index` of the last batch.
    pub fn datagram(&self, index: usize) -> &[u8] {
        let header = if index < self.received {
            self.headers.get(index)
        } else {
            None
        };
        let length = header.map_or(0, |h| (h.msg_len as usize).min(BUFFER_BYTES));
        self.buffers
            .get(index * BUFFER_BYTES..index * BUFFER_BYTES + length)
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn a_batch_holds_the_datagrams_in_order() {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        for i in 0..10u8 {
            sender
                .send_to(
                    &vec![i; 100 + usize::from(i)],
                    receiver.local_addr().unwrap(),
                )
                .unwrap();
        }
        let mut plain = PlainReceiver::new(8);
        assert_eq!(plain.receive(&receiver).unwrap(), 8);
        for i in 0..8u8 {
            assert_eq!(
                plain.datagram(usize::from(i)),
                vec![i; 100 + usize::from(i)]
            );
        }
        assert_eq!(plain.receive(&receiver).unwrap(), 2);
        assert_eq!(plain.datagram(1), vec![9; 109]);
        assert_eq!(plain.datagram(2), b"");
        assert_eq!(plain.receive(&receiver).unwrap(), 0);
    }
}
