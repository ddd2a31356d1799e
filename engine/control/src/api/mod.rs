//! The HTTP side (product contract, section 4): the cage accepts ([`cage`]), tiny_http speaks
//! HTTP, a few workers answer ([`routes`]), and a supervisor hangs a new tiny_http into the cage
//! when the old one fails. Nothing here can hold up the control thread or a shard: handlers look
//! at the shared state under short locks and wait for shards for a second at the most.

mod cage;
mod create;
mod latency;
mod list;
mod private;
mod response;
mod routes;
#[cfg(test)]
mod tests;

use std::io::{self, Read as _};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cage::{Cage, CageCounters, Door};
use private::PrivateDirectory;
use response::Response;
pub(crate) use response::percent_decode;

pub(crate) use latency::{
    STAGES as LATENCY_STAGES, ask_all as ask_latency, stage as latency_stage,
};
pub(crate) use routes::Service;

/// Threads that answer requests.
const WORKERS: usize = 4;
/// How long a worker waits for a request before it looks whether it is still wanted.
const WORKER_PAUSE: Duration = Duration::from_secs(2);
/// How often the supervisor looks whether something is wrong.
const WATCH_INTERVAL: Duration = Duration::from_millis(200);
/// First and longest wait before the supervisor tries again to start tiny_http.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5));
/// Descriptors of the process beside those of API clients: shards, registry, files, a reserve.
const OTHER_DESCRIPTORS: u64 = 128;
/// How often the supervisor tries whether tiny_http answers.
const PROBE_INTERVAL: Duration = Duration::from_secs(5);

/// Requests answered, by class of status.
#[derive(Debug, Default)]
pub(crate) struct ApiCounters {
    pub(crate) cage: Arc<CageCounters>,
    pub(crate) ok: AtomicU64,
    pub(crate) client_errors: AtomicU64,
    pub(crate) server_errors: AtomicU64,
    pub(crate) busy_us: AtomicU64,
    pub(crate) panics: AtomicU64,
}

/// The running HTTP side.
#[derive(Debug)]
pub(crate) struct Api {
    address: SocketAddr,
    #[cfg(test)]
    door: Arc<Door>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Api {
    /// Binds and starts. The listener is bound here, so that a port in use is an error at once.
    pub(crate) fn start(service: Arc<Service>) -> io::Result<Api> {
        let config = &service.config.api;
        let listener = bind(config.listen)?;
        if let Some(warning) = descriptor_warning(config.max_connections, descriptor_limit()) {
            tracing::warn!("{warning}");
        }
        let address = listener.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let server = Inner::start(service.clone())?;
        let door = Arc::new(Door {
            path: Mutex::new(server.path.clone()),
            suspect: AtomicBool::new(false),
        });
        let cage = Cage {
            listener,
            max_connections: config.max_connections,
            door: door.clone(),
            counters: service.counters.cage.clone(),
            stop: stop.clone(),
        };
        let supervisor = Supervisor {
            service,
            server,
            door: door.clone(),
            stop: stop.clone(),
            retry: None,
            left: Vec::new(),
        };
        let threads = vec![
            std::thread::Builder::new()
                .name("api-cage".to_owned())
                .spawn(move || cage.run())?,
            std::thread::Builder::new()
                .name("api-watch".to_owned())
                .spawn(move || supervisor.run())?,
        ];
        Ok(Api {
            address,
            #[cfg(test)]
            door,
            stop,
            threads,
        })
    }

    /// Where it listens (the port too when 0 was asked for).
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where tiny_http listens now.
    #[cfg(test)]
    fn inner_socket(&self) -> PathBuf {
        self.door
            .path
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Ends all threads.
    pub(crate) fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Descriptors that this process may have; `None`: no limit.
fn descriptor_limit() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current
}

/// What to say when the configured number of clients needs more descriptors than there may be.
fn descriptor_warning(max_connections: usize, limit: Option<u64>) -> Option<String> {
    // A request inside costs both ends of its Unix connection, and tiny_http a copy of its own.
    let needed = (max_connections + 3 * cage::MAX_INSIDE) as u64 + OTHER_DESCRIPTORS;
    limit.filter(|limit| *limit < needed).map(|limit| {
        format!(
            "api.max_connections = {max_connections} may need {needed} descriptors, the process \
             may have {limit}: lower it, or raise the limit (ulimit -n, LimitNOFILE)"
        )
    })
}

/// One tiny_http with its workers, on a Unix socket in a directory that only we can enter.
struct Inner {
    path: PathBuf,
    retired: Arc<AtomicBool>,
    room: Arc<Room>,
    workers: Vec<JoinHandle<()>>,
}

/// tiny_http and its directory, in the order in which they go: to end its acceptor, tiny_http
/// connects to its own socket, which has to be there still.
struct Room {
    server: tiny_http::Server,
    _directory: PrivateDirectory,
}

impl Inner {
    fn start(service: Arc<Service>) -> io::Result<Inner> {
        let directory = PrivateDirectory::new()?;
        let path = directory.socket();
        let listener = UnixListener::bind(&path)?;
        let room = Arc::new(Room {
            server: tiny_http::Server::from_listener(listener, None).map_err(io::Error::other)?,
            _directory: directory,
        });
        let retired = Arc::new(AtomicBool::new(false));
        let workers = (0..WORKERS)
            .map(|i| {
                let (room, service, retired) = (room.clone(), service.clone(), retired.clone());
                std::thread::Builder::new()
                    .name(format!("api-{i}"))
                    .spawn(move || work(&room.server, &service, &retired))
            })
            .collect::<io::Result<Vec<_>>>()
            // Those that did start have nothing to do.
            .inspect_err(|_| retired.store(true, Ordering::Relaxed))?;
        Ok(Inner {
            path,
            retired,
            room,
            workers,
        })
    }

    /// tiny_http answers a request, or one of its workers has left because its acceptor died.
    fn answers(&self) -> bool {
        !self.workers.iter().any(JoinHandle::is_finished) && probe(&self.path).is_ok()
    }

    /// Tells the workers to end, and gives them back. The server and its directory go with the
    /// last of them.
    fn retire(self) -> Vec<JoinHandle<()>> {
        self.retired.store(true, Ordering::Relaxed);
        for _ in 0..WORKERS {
            self.room.server.unblock();
        }
        self.workers
    }
}

fn work(server: &tiny_http::Server, service: &Service, retired: &AtomicBool) {
    while !retired.load(Ordering::Relaxed) {
        match server.recv_timeout(WORKER_PAUSE) {
            Ok(Some(request)) => answer(service, request),
            Ok(None) => {}
            // tiny_http's acceptor is dead: the supervisor sees this worker gone.
            Err(_) => return,
        }
    }
}

fn answer(service: &Service, mut request: tiny_http::Request) {
    let start = Instant::now();
    let authorization = header(&request, "Authorization");
    let origin = header(&request, "Origin");
    let method = request.method().as_str().to_owned();
    let url = request.url().to_owned();
    // The cage has it whole, and no longer than this.
    let mut body = Vec::new();
    if method == "POST" {
        let mut reader = request.as_reader().take(cage::MAX_BODY as u64);
        let _ = reader.read_to_end(&mut body);
    }
    let handled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let (authorization, origin) = (authorization.as_deref(), origin.as_deref());
        service.handle(&method, &url, authorization, origin, &body)
    }));
    let response = handled.unwrap_or_else(|_| {
        service.counters.panics.fetch_add(1, Ordering::Relaxed);
        Response::error(500, "this request met an error of ours")
    });
    let counters = &service.counters;
    match response.status {
        ..400 => &counters.ok,
        400..500 => &counters.client_errors,
        _ => &counters.server_errors,
    }
    .fetch_add(1, Ordering::Relaxed);
    let micros = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
    counters.busy_us.fetch_add(micros, Ordering::Relaxed);
    // A client that is gone is no fault.
    let _ = request.respond(to_tiny(response));
}

fn header(request: &tiny_http::Request, name: &'static str) -> Option<String> {
    request
        .headers()
        .iter()
        .find(|h| h.field.equiv(name))
        .map(|h| h.value.as_str().to_owned())
}

fn to_tiny(response: Response) -> tiny_http::Response<io::Cursor<Vec<u8>>> {
    let length = response.body.len();
    let mut headers = Vec::with_capacity(response.headers.len() + 3);
    let own = [
        ("Content-Type", response.content_type),
        ("Cache-Control", "no-store"),
        ("Server", "mirror-ingest"),
    ];
    let all = own.into_iter().chain(
        response
            .headers
            .iter()
            .map(|(name, value)| (*name, value.as_str())),
    );
    for (name, value) in all {
        headers.extend(tiny_http::Header::from_bytes(name, value));
    }
    tiny_http::Response::new(
        tiny_http::StatusCode(response.status),
        headers,
        io::Cursor::new(response.body),
        Some(length),
        None,
    )
    // The length is always known: never chunk.
    .with_chunked_threshold(usize::MAX)
}

/// Watches tiny_http and starts it anew when it fails.
struct Supervisor {
    service: Arc<Service>,
    server: Inner,
    door: Arc<Door>,
    stop: Arc<AtomicBool>,
    /// While tiny_http cannot be started.
    retry: Option<Retry>,
    /// Workers of servers that were replaced: they end by themselves, unless a request hangs.
    left: Vec<JoinHandle<()>>,
}

/// When starting tiny_http is tried again.
struct Retry {
    at: Instant,
    wait: Duration,
    /// What was logged already.
    error: String,
}

impl Supervisor {
    fn run(mut self) {
        let mut next_probe = Instant::now() + PROBE_INTERVAL;
        while !self.stop.load(Ordering::Relaxed) {
            std::thread::park_timeout(WATCH_INTERVAL);
            let now = Instant::now();
            let dead = self.server.workers.iter().any(JoinHandle::is_finished);
            let suspect = self.door.suspect.swap(false, Ordering::Relaxed);
            let due = match &self.retry {
                Some(retry) => now >= retry.at,
                None => dead || suspect || now >= next_probe,
            };
            if !due {
                continue;
            }
            next_probe = now + PROBE_INTERVAL;
            if !self.server.answers() {
                self.restart();
            } else if self.retry.take().is_some() {
                tracing::info!("the HTTP server answers again");
            }
        }
        for worker in self.server.retire() {
            let _ = worker.join();
        }
        let deadline = Instant::now() + WORKER_PAUSE;
        while self.left.iter().any(|w| !w.is_finished()) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        // Each worker lets go of its server before it is finished: what is left hangs.
        self.left
            .into_iter()
            .filter(JoinHandle::is_finished)
            .for_each(|worker| drop(worker.join()));
    }

    fn restart(&mut self) {
        if self.retry.is_none() {
            tracing::error!("the HTTP server does not answer: starting it anew");
        }
        match Inner::start(self.service.clone()) {
            Ok(server) => {
                let path = server.path.clone();
                *self
                    .door
                    .path
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner) = path;
                let old = std::mem::replace(&mut self.server, server);
                // Its workers may hang: they are left to end by themselves.
                self.left.retain(|worker| !worker.is_finished());
                self.left.extend(old.retire());
                if self.retry.take().is_some() {
                    tracing::info!("the HTTP server is started");
                }
                self.service
                    .counters
                    .cage
                    .server_restarts
                    .fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                let error = error.to_string();
                let before = self.retry.take();
                if before.as_ref().is_none_or(|retry| retry.error != error) {
                    tracing::error!(error, "the HTTP server cannot be started");
                }
                let wait = before.map_or(RETRY.0, |retry| (retry.wait * 2).min(RETRY.1));
                let at = Instant::now() + wait;
                self.retry = Some(Retry { at, wait, error });
            }
        }
    }
}

/// Asks tiny_http for a sign of life.
fn probe(path: &std::path::Path) -> io::Result<()> {
    use std::io::{Read, Write};
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(Duration::from_secs(3)))?;
    stream.set_write_timeout(Some(Duration::from_secs(1)))?;
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: self\r\nConnection: close\r\n\r\n")?;
    let mut start = [0_u8; 12];
    stream.read_exact(&mut start)?;
    if start.starts_with(b"HTTP/1.1 200") {
        Ok(())
    } else {
        Err(io::Error::other("no 200"))
    }
}
