//! The cage around tiny_http (design, D10). tiny_http spawns a thread per silent client, buffers
//! any header, and its acceptor dies of any accept error. So one thread of ours stands before
//! it: it accepts without blocking, caps connections, reads request heads within 8 KiB and 5 s,
//! and only then lets a complete request through to tiny_http on a Unix socket, a bounded number
//! at a time. The whole answer is buffered here (bounded), so that a slow reader holds nobody.
//! Each connection serves one request and is closed; TLS and keep-alive are a reverse proxy's.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Largest request head.
pub(crate) const MAX_HEAD: usize = 8 * 1024;
/// Largest request body.
pub(super) const MAX_BODY: usize = 64 * 1024;
/// Time for the head, and again for the body.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// A client that takes no byte of its answer for so long is dropped.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// The whole answer must be taken by then.
const ANSWER_TAKEN_TIMEOUT: Duration = Duration::from_secs(60);
/// When there is no room for newcomers, answers may be cut off after this time.
const ANSWER_GRACE: Duration = Duration::from_secs(5);
/// tiny_http must have answered by then.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Requests inside tiny_http at the same time: each costs it a thread.
pub(crate) const MAX_INSIDE: usize = 32;
/// Answers held for clients, all together. Beyond it the greatest is dropped.
const MAX_BUFFERED: usize = 128 << 20;
/// How long accepting rests after an error such as EMFILE.
const ACCEPT_REST: Duration = Duration::from_millis(100);
/// After the answer: how long the client's last bytes are read away before closing.
const LINGER: Duration = Duration::from_secs(1);

/// Sent to a client that waits with its body for leave.
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// What the cage counts.
#[derive(Debug, Default)]
pub(crate) struct CageCounters {
    pub(crate) accepted: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) accept_errors: AtomicU64,
    pub(crate) bad_requests: AtomicU64,
    pub(crate) timeouts: AtomicU64,
    pub(crate) open: AtomicU64,
    pub(crate) inside: AtomicU64,
    pub(crate) server_failures: AtomicU64,
    pub(crate) server_restarts: AtomicU64,
}

/// The door to tiny_http, which may be hung anew when tiny_http had to be started again.
#[derive(Debug)]
pub(crate) struct Door {
    pub(crate) path: std::sync::Mutex<PathBuf>,
    /// Set by the cage when connecting fails or answers do not come.
    pub(crate) suspect: AtomicBool,
}

pub(crate) struct Cage {
    pub(crate) listener: TcpListener,
    pub(crate) max_connections: usize,
    pub(crate) door: Arc<Door>,
    pub(crate) counters: Arc<CageCounters>,
    pub(crate) stop: Arc<AtomicBool>,
}

/// Where a connection stands.
enum Phase {
    /// Reading the head.
    Head,
    /// The head is good; reading the body up to this length of input.
    Body { head: Parsed, total: usize },
    /// Complete, waiting for room inside.
    Queued { request: Vec<u8> },
    /// At tiny_http: `sent` bytes of the request are through.
    Inside {
        server: UnixStream,
        request: Vec<u8>,
        sent: usize,
    },
    /// Everything that will be said is in `output`.
    Answering,
    /// Said; reading away what the client still sends, so that no reset eats the answer.
    Lingering,
    /// To be closed.
    Done,
}

struct Connection {
    client: TcpStream,
    phase: Phase,
    input: Vec<u8>,
    output: VecDeque<u8>,
    deadline: Instant,
    /// When the answer began to go out.
    answering_since: Instant,
}

/// A request head that passed.
#[derive(Clone, Debug)]
struct Parsed {
    /// The head as tiny_http gets it.
    rewritten: Vec<u8>,
    head_len: usize,
    content_length: usize,
    expects_continue: bool,
}

enum HeadResult {
    Partial,
    Complete(Parsed),
    Bad(u16, &'static str),
}

impl Cage {
    pub(crate) fn run(self) {
        let mut connections: Vec<Connection> = Vec::new();
        let mut rest_until: Option<Instant> = None;
        while !self.stop.load(Ordering::Relaxed) {
            let now = Instant::now();
            if rest_until.is_some_and(|at| at <= now) {
                rest_until = None;
            }
            let ready = self.wait(&connections, rest_until.is_none(), now);
            let now = Instant::now();
            if ready.accept && rest_until.is_none() && !self.accept(&mut connections, now) {
                rest_until = Some(now + ACCEPT_REST);
            }
            for (connection, (client, server)) in connections.iter_mut().zip(ready.connections) {
                self.advance(connection, client, server, now);
            }
            self.admit(&mut connections, now);
            self.bound_memory(&mut connections);
            connections.retain(|c| !matches!(c.phase, Phase::Done));
            self.counters
                .open
                .store(connections.len() as u64, Ordering::Relaxed);
        }
    }

    /// Waits until something can go on, 250 ms at most.
    fn wait(&self, connections: &[Connection], accepting: bool, now: Instant) -> Ready {
        let mut fds: Vec<PollFd<'_>> = Vec::with_capacity(connections.len() * 2 + 1);
        let mut places = Vec::with_capacity(connections.len());
        let accept_flags = if accepting {
            PollFlags::IN
        } else {
            PollFlags::empty()
        };
        fds.push(PollFd::from_borrowed_fd(
            self.listener.as_fd(),
            accept_flags,
        ));
        let mut until = now + Duration::from_millis(250);
        for connection in connections {
            until = until.min(connection.deadline);
            let client = connection
                .client_interest()
                .map(|flags| push(&mut fds, connection.client.as_fd(), flags));
            let server = connection
                .server_interest()
                .map(|(server, flags)| push(&mut fds, server.as_fd(), flags));
            places.push((client, server));
        }
        let timeout = until.saturating_duration_since(now);
        let timeout = Timespec {
            tv_sec: 0,
            tv_nsec: i64::from(timeout.subsec_nanos().min(250_000_000)),
        };
        if poll(&mut fds, Some(&timeout)).is_err() {
            // EINTR, or no memory for a moment: look again shortly.
            std::thread::sleep(Duration::from_millis(1));
            return Ready {
                accept: false,
                connections: vec![(false, false); connections.len()],
            };
        }
        let hit = |place: Option<usize>| {
            place
                .and_then(|i| fds.get(i))
                .is_some_and(|fd| !fd.revents().is_empty())
        };
        Ready {
            accept: hit(Some(0)),
            connections: places.into_iter().map(|(c, s)| (hit(c), hit(s))).collect(),
        }
    }

    /// Accepts what waits. `false` after an error that asks for a rest (EMFILE and the like).
    fn accept(&self, connections: &mut Vec<Connection>, now: Instant) -> bool {
        for _ in 0..64 {
            match self.listener.accept() {
                Ok((client, _)) => {
                    if client.set_nonblocking(true).is_err() {
                        continue;
                    }
                    let _ = client.set_nodelay(true);
                    self.counters.accepted.fetch_add(1, Ordering::Relaxed);
                    let mut connection = Connection::new(client, now);
                    if connections.len() >= self.max_connections && !evict(connections, now) {
                        self.counters.refused.fetch_add(1, Ordering::Relaxed);
                        connection.fail(503, "too many connections", now);
                        // One attempt to say so; there is no room to wait for it.
                        let _ = connection.flush();
                        continue;
                    }
                    connections.push(connection);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // A client that left while it waited; the next one may be fine.
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(_) => {
                    self.counters.accept_errors.fetch_add(1, Ordering::Relaxed);
                    return false;
                }
            }
        }
        true
    }

    fn advance(&self, connection: &mut Connection, client: bool, server: bool, now: Instant) {
        if server || client {
            match connection.phase {
                Phase::Head | Phase::Body { .. } if client => self.read_request(connection, now),
                Phase::Queued { .. } | Phase::Inside { .. } if client => {
                    connection.phase = Phase::Done
                }
                Phase::Answering if client => connection.write_answer(now),
                Phase::Lingering if client => connection.drain_client(),
                _ => {}
            }
            if server && matches!(connection.phase, Phase::Inside { .. }) {
                self.exchange(connection, now);
            }
        }
        if now >= connection.deadline {
            self.overdue(connection, now);
        }
    }

    fn overdue(&self, connection: &mut Connection, now: Instant) {
        // An answered client that leaves its end open is no timeout.
        if !matches!(connection.phase, Phase::Lingering | Phase::Done) {
            self.counters.timeouts.fetch_add(1, Ordering::Relaxed);
        }
        match connection.phase {
            // Nothing was asked: nothing to answer.
            Phase::Head if connection.input.is_empty() => connection.phase = Phase::Done,
            Phase::Head | Phase::Body { .. } => {
                connection.fail(408, "the request did not come in time", now)
            }
            Phase::Queued { .. } => connection.fail(503, "the API is busy", now),
            Phase::Inside { .. } => {
                self.door.suspect.store(true, Ordering::Relaxed);
                connection.fail(503, "the API did not answer in time", now);
            }
            Phase::Answering | Phase::Lingering | Phase::Done => connection.phase = Phase::Done,
        }
    }

    fn read_request(&self, connection: &mut Connection, now: Instant) {
        let limit = match &connection.phase {
            Phase::Body { total, .. } => *total,
            _ => MAX_HEAD + MAX_BODY,
        };
        if !connection.fill(limit) {
            return;
        }
        if matches!(connection.phase, Phase::Head) {
            match parse_head(&connection.input) {
                HeadResult::Partial => return,
                HeadResult::Bad(status, why) => {
                    self.counters.bad_requests.fetch_add(1, Ordering::Relaxed);
                    connection.fail(status, why, now);
                    return;
                }
                HeadResult::Complete(head) => {
                    let total = head.head_len + head.content_length;
                    if head.expects_continue && connection.input.len() < total {
                        connection.output.extend(CONTINUE);
                        let _ = connection.flush();
                    }
                    connection.deadline = now + READ_TIMEOUT;
                    connection.phase = Phase::Body { head, total };
                }
            }
        }
        if let Phase::Body { head, total } = &connection.phase
            && let Some(body) = connection.input.get(head.head_len..*total)
        {
            let mut request = head.rewritten.clone();
            request.extend_from_slice(body);
            connection.input = Vec::new();
            connection.deadline = now + ANSWER_TIMEOUT;
            connection.phase = Phase::Queued { request };
        }
    }

    /// Lets queued requests through, oldest first, as far as there is room inside.
    fn admit(&self, connections: &mut [Connection], now: Instant) {
        let mut inside = connections
            .iter()
            .filter(|c| matches!(c.phase, Phase::Inside { .. }))
            .count();
        for connection in connections.iter_mut() {
            if inside >= MAX_INSIDE {
                break;
            }
            if !matches!(connection.phase, Phase::Queued { .. }) {
                continue;
            }
            let Phase::Queued { request } = std::mem::replace(&mut connection.phase, Phase::Done)
            else {
                continue;
            };
            match self.connect() {
                Ok(server) => {
                    inside += 1;
                    connection.deadline = now + ANSWER_TIMEOUT;
                    connection.phase = Phase::Inside {
                        server,
                        request,
                        sent: 0,
                    };
                    self.exchange(connection, now);
                }
                Err(error) => {
                    if error.kind() != ErrorKind::WouldBlock {
                        self.door.suspect.store(true, Ordering::Relaxed);
                        self.counters
                            .server_failures
                            .fetch_add(1, Ordering::Relaxed);
                    }
                    connection.fail(503, "the API is being restarted", now);
                }
            }
        }
        self.counters.inside.store(inside as u64, Ordering::Relaxed);
    }

    /// Without blocking: a Unix socket's backlog may be full.
    fn connect(&self) -> std::io::Result<UnixStream> {
        use rustix::net::{
            AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with,
        };
        let path = self
            .door
            .path
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clone();
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let fd = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        connect(&fd, &SocketAddrUnix::new(path)?)?;
        Ok(UnixStream::from(fd))
    }

    /// Carries bytes between the request, tiny_http and the answer.
    fn exchange(&self, connection: &mut Connection, now: Instant) {
        let Phase::Inside {
            server,
            request,
            sent,
        } = &mut connection.phase
        else {
            return;
        };
        while let Some(rest) = request.get(*sent..).filter(|rest| !rest.is_empty()) {
            match server.write(rest) {
                Ok(n) => *sent += n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        let mut chunk = [0_u8; 16 * 1024];
        loop {
            match server.read(&mut chunk) {
                Ok(0) => break,
                Ok(n) => connection.output.extend(chunk.get(..n).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        if connection.output.is_empty() {
            self.counters
                .server_failures
                .fetch_add(1, Ordering::Relaxed);
            connection.fail(503, "the API gave no answer", now);
            return;
        }
        connection.announce_close();
        connection.begin_answer(now);
        connection.write_answer(now);
    }

    fn bound_memory(&self, connections: &mut [Connection]) {
        let total: usize = connections.iter().map(|c| c.output.len()).sum();
        if total > MAX_BUFFERED
            && let Some(greatest) = connections.iter_mut().max_by_key(|c| c.output.len())
        {
            greatest.phase = Phase::Done;
        }
    }
}

struct Ready {
    accept: bool,
    /// Client and server of each connection.
    connections: Vec<(bool, bool)>,
}

fn push<'a>(fds: &mut Vec<PollFd<'a>>, fd: BorrowedFd<'a>, flags: PollFlags) -> usize {
    fds.push(PollFd::from_borrowed_fd(fd, flags));
    fds.len() - 1
}

/// Makes room for a newcomer: a client that had a second to say something and is not done, or
/// five to take its answer, goes. So idle and slow clients cannot keep others out.
fn evict(connections: &mut Vec<Connection>, now: Instant) -> bool {
    let idle = READ_TIMEOUT.saturating_sub(Duration::from_secs(1));
    let oldest = connections
        .iter()
        .enumerate()
        .filter(|(_, c)| match c.phase {
            Phase::Head | Phase::Body { .. } => c.deadline.saturating_duration_since(now) < idle,
            Phase::Answering => now.saturating_duration_since(c.answering_since) > ANSWER_GRACE,
            Phase::Lingering | Phase::Done => true,
            Phase::Queued { .. } | Phase::Inside { .. } => false,
        })
        .min_by_key(|(_, c)| c.deadline)
        .map(|(i, _)| i);
    if let Some(i) = oldest {
        connections.swap_remove(i);
    }
    oldest.is_some()
}

impl Connection {
    fn new(client: TcpStream, now: Instant) -> Self {
        Connection {
            client,
            phase: Phase::Head,
            input: Vec::new(),
            output: VecDeque::new(),
            deadline: now + READ_TIMEOUT,
            answering_since: now,
        }
    }

    fn client_interest(&self) -> Option<PollFlags> {
        match self.phase {
            Phase::Head | Phase::Body { .. } | Phase::Lingering => Some(PollFlags::IN),
            // Nothing: an error or a reset is reported all the same. A client that only closed
            // its sending side still reads.
            Phase::Queued { .. } | Phase::Inside { .. } => Some(PollFlags::empty()),
            Phase::Answering => Some(PollFlags::OUT),
            Phase::Done => None,
        }
    }

    fn server_interest(&self) -> Option<(&UnixStream, PollFlags)> {
        match &self.phase {
            Phase::Inside {
                server,
                request,
                sent,
            } if *sent < request.len() => Some((server, PollFlags::IN | PollFlags::OUT)),
            Phase::Inside { server, .. } => Some((server, PollFlags::IN)),
            _ => None,
        }
    }

    /// Reads into `input`, up to `limit` bytes in all. `false` when there is nothing to go on
    /// with.
    fn fill(&mut self, limit: usize) -> bool {
        let mut chunk = [0_u8; 4096];
        let mut news = false;
        while self.input.len() < limit {
            let room = chunk.len().min(limit - self.input.len());
            let Some(place) = chunk.get_mut(..room) else {
                break;
            };
            match self.client.read(place) {
                // What came before the end may be a whole request.
                Ok(0) if news => break,
                Ok(0) => {
                    self.phase = Phase::Done;
                    return false;
                }
                Ok(n) => {
                    self.input
                        .extend_from_slice(chunk.get(..n).unwrap_or_default());
                    news = true;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => {
                    self.phase = Phase::Done;
                    return false;
                }
            }
        }
        news
    }

    fn fail(&mut self, status: u16, message: &str, now: Instant) {
        let body = super::response::error_body(status, message);
        let reason = super::response::reason(status);
        let head = format!(
            "HTTP/1.1 {status} {reason}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        self.output = head
            .into_bytes()
            .into_iter()
            .chain(body.into_bytes())
            .collect();
        self.begin_answer(now);
    }

    /// Says in tiny_http's answer that the connection closes after it (RFC 9112, 9.3).
    fn announce_close(&mut self) {
        const HEADER: &[u8] = b"Connection: close\r\n";
        let output = self.output.make_contiguous();
        // A head that is not all out yet, such as 100 Continue, is not the answer's.
        let start = if output.starts_with(CONTINUE) {
            CONTINUE.len()
        } else {
            0
        };
        let answer = output.get(start..).unwrap_or_default();
        let line = answer.windows(2).position(|pair| pair == b"\r\n");
        let Some(at) = line.filter(|_| answer.starts_with(b"HTTP/1.")) else {
            return;
        };
        let rest = self.output.split_off(start + at + 2);
        self.output.extend(HEADER);
        self.output.extend(rest);
    }

    fn begin_answer(&mut self, now: Instant) {
        self.phase = Phase::Answering;
        self.answering_since = now;
        self.deadline = now + WRITE_TIMEOUT;
    }

    /// Writes what the client takes; `Ok(true)` when all is out.
    fn flush(&mut self) -> std::io::Result<bool> {
        loop {
            let (front, _) = self.output.as_slices();
            if front.is_empty() {
                return Ok(true);
            }
            match self.client.write(front) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(n) => drop(self.output.drain(..n)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn write_answer(&mut self, now: Instant) {
        let before = self.output.len();
        match self.flush() {
            Ok(true) => {
                let _ = self.client.shutdown(Shutdown::Write);
                self.phase = Phase::Lingering;
                self.deadline = now + LINGER;
                self.drain_client();
            }
            Ok(false) if self.output.len() < before => {
                let last = self.answering_since + ANSWER_TAKEN_TIMEOUT;
                self.deadline = last.min(now + WRITE_TIMEOUT);
            }
            Ok(false) => {}
            Err(_) => self.phase = Phase::Done,
        }
    }

    fn drain_client(&mut self) {
        let mut chunk = [0_u8; 4096];
        for _ in 0..16 {
            match self.client.read(&mut chunk) {
                Ok(0) => {
                    self.phase = Phase::Done;
                    return;
                }
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => {
                    self.phase = Phase::Done;
                    return;
                }
            }
        }
    }
}

/// Checks a request head and writes it anew for tiny_http: hop-by-hop headers go, the
/// connection closes after the answer, and what tiny_http sees is what was checked.
fn parse_head(input: &[u8]) -> HeadResult {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut headers);
    let head = input.get(..input.len().min(MAX_HEAD)).unwrap_or_default();
    let head_len = match request.parse(head) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) if input.len() >= MAX_HEAD => {
            return HeadResult::Bad(431, "the request head is longer than 8 KiB");
        }
        Ok(httparse::Status::Partial) => return HeadResult::Partial,
        Err(httparse::Error::TooManyHeaders) => {
            return HeadResult::Bad(431, "more than 64 headers");
        }
        Err(_) => return HeadResult::Bad(400, "not an HTTP request"),
    };
    let (Some(method), Some(path), Some(version)) = (request.method, request.path, request.version)
    else {
        return HeadResult::Bad(400, "not an HTTP request");
    };
    if !path.starts_with('/') && path != "*" {
        return HeadResult::Bad(400, "the request target must be a path");
    }
    let mut rewritten =
        format!("{method} {path} HTTP/1.{version}\r\nConnection: close\r\n").into_bytes();
    let mut content_length: Option<usize> = None;
    let mut expects_continue = false;
    for header in request.headers.iter() {
        let name = header.name.to_ascii_lowercase();
        match name.as_str() {
            "transfer-encoding" => {
                return HeadResult::Bad(411, "send the body with Content-Length");
            }
            "content-length" => {
                let digits = header.value;
                let ok = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
                let length = std::str::from_utf8(digits)
                    .ok()
                    .and_then(|t| t.parse::<usize>().ok());
                match (ok, length, content_length) {
                    (true, Some(length), None) => content_length = Some(length),
                    (true, Some(length), Some(before)) if length == before => {}
                    (true, None, _) => {
                        return HeadResult::Bad(413, "the body is longer than 64 KiB");
                    }
                    _ => return HeadResult::Bad(400, "malformed Content-Length"),
                }
            }
            "expect" => expects_continue = header.value.eq_ignore_ascii_case(b"100-continue"),
            "connection" | "keep-alive" | "te" | "trailer" | "upgrade" | "proxy-connection" => {}
            _ => {
                // tiny_http knows ASCII only; nothing that we read is anything else.
                if header.value.is_ascii() {
                    rewritten.extend_from_slice(header.name.as_bytes());
                    rewritten.extend_from_slice(b": ");
                    rewritten.extend_from_slice(header.value);
                    rewritten.extend_from_slice(b"\r\n");
                }
            }
        }
    }
    let content_length = content_length.unwrap_or(0);
    if content_length > MAX_BODY {
        return HeadResult::Bad(413, "the body is longer than 64 KiB");
    }
    rewritten.extend_from_slice(format!("Content-Length: {content_length}\r\n\r\n").as_bytes());
    HeadResult::Complete(Parsed {
        rewritten,
        head_len,
        content_length,
        expects_continue,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(result: &HeadResult) -> u16 {
        match result {
            HeadResult::Bad(status, _) => *status,
            HeadResult::Partial => 0,
            HeadResult::Complete(_) => 200,
        }
    }

    #[test]
    fn heads_are_bounded_checked_and_rewritten() {
        let result = parse_head(
            b"GET /x?y=1 HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\nTE: chunked\r\n\r\n",
        );
        let HeadResult::Complete(head) = result else {
            panic!("complete")
        };
        let text = String::from_utf8(head.rewritten).unwrap();
        assert_eq!(
            text,
            "GET /x?y=1 HTTP/1.1\r\nConnection: close\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
        );
        assert_eq!(status(&parse_head(b"GET / HTTP/1.1\r\nHo")), 0);
        for (head, expected) in [
            (&b"\x16\x03\x01\x02\x00"[..], 400),
            (b"GET http://x/ HTTP/1.1\r\n\r\n", 400),
            (
                b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
                411,
            ),
            (b"POST / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n", 413),
            (
                b"POST / HTTP/1.1\r\nContent-Length: 99999999999999999999999999\r\n\r\n",
                413,
            ),
            (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
            (
                b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
                400,
            ),
        ] {
            assert_eq!(
                status(&parse_head(head)),
                expected,
                "{:?}",
                String::from_utf8_lossy(head)
            );
        }
        let mut long = b"GET / HTTP/1.1\r\nX: ".to_vec();
        long.resize(MAX_HEAD, b'a');
        assert_eq!(status(&parse_head(&long)), 431);
        let mut many = b"GET / HTTP/1.1\r\n".to_vec();
        for _ in 0..65 {
            many.extend_from_slice(b"A: b\r\n");
        }
        many.extend_from_slice(b"\r\n");
        assert_eq!(status(&parse_head(&many)), 431);
    }
}
