//! The HTTP side when the process runs out of file descriptors: it goes on by itself as soon as
//! there are some again, even though tiny_http's acceptor dies of it. A process of its own,
//! because the limit is the process's.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mirror_base::ShardId;
use mirror_control::{Config, Control, Directory, Mailboxes, Sources, Undeliverable};
use mirror_stream::report::Command;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

#[derive(Debug)]
struct Nobody;

impl Mailboxes for Nobody {
    fn shards(&self) -> usize {
        1
    }

    fn send(&self, shard: ShardId, _command: Command) -> Result<(), Undeliverable> {
        Err(Undeliverable(shard))
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let client = TcpStream::connect(address).expect("the listener's backlog has room");
    client
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    client
}

fn ask(mut client: TcpStream) -> String {
    let mut answer = String::new();
    let _ = client.write_all(b"GET /healthz HTTP/1.1\r\n\r\n");
    let _ = client.read_to_string(&mut answer);
    answer.lines().next().unwrap_or("nothing").to_owned()
}

/// Takes every descriptor that is left.
fn take_all() -> Vec<File> {
    std::iter::from_fn(|| File::open("/dev/null").ok()).collect()
}

/// Directories of this process's inner sockets.
fn inner_directories() -> Vec<String> {
    let ours = format!("mirror-{}-", std::process::id());
    ["RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR"]
        .iter()
        .filter_map(std::env::var_os)
        .map(std::path::PathBuf::from)
        .chain([std::env::temp_dir()])
        .flat_map(|base| std::fs::read_dir(base).into_iter().flatten().flatten())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with(&ours))
        .collect()
}

fn served(address: SocketAddr) {
    let deadline = Instant::now() + Duration::from_secs(15);
    loop {
        let answer = ask(connect(address));
        if answer == "HTTP/1.1 200 OK" {
            return;
        }
        assert!(Instant::now() < deadline, "{answer}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn api_survives_running_out_of_descriptors() {
    let set = vec!["api.listen=127.0.0.1:0".to_owned()];
    let config = Config::load(&Sources {
        set,
        ..Sources::default()
    })
    .unwrap();
    let directory = Arc::new(Directory::new(1, 10, Vec::new()));
    let (_events, receiver) = crossbeam_channel::unbounded();
    let control = Control::start(Arc::new(config), Arc::new(Nobody), receiver, directory).unwrap();
    let address = control.api_address().unwrap();
    served(address);

    let limit = getrlimit(Resource::Nofile);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: Some(100),
            maximum: limit.maximum,
        },
    )
    .unwrap();

    // No descriptor to accept with: the client waits and is served when there is one.
    let mut taken = take_all();
    taken.pop();
    let waiting = connect(address);
    std::thread::sleep(Duration::from_millis(400));
    drop(taken);
    assert_eq!(ask(waiting), "HTTP/1.1 200 OK");

    // Accepted, and room for one descriptor only: tiny_http cannot accept and dies of it.
    let client = connect(address);
    std::thread::sleep(Duration::from_millis(200));
    let mut taken = take_all();
    taken.pop();
    let answer = ask(client);
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    // The next look at it (every 5 s) cannot be made, nor can it be started anew for a while. Each
    // attempt cleans up after itself.
    // What connections that end give back is taken too.
    for _ in 0..65 {
        taken.extend(take_all());
        std::thread::sleep(Duration::from_millis(100));
    }
    drop(taken);
    served(address);
    let directories = inner_directories();
    assert!(directories.len() <= 2, "{directories:?}");
    control.shutdown(Duration::from_secs(1));
    assert_eq!(inner_directories(), Vec::<String>::new());
}
