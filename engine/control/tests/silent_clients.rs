//! Silent clients cost the API no threads. A process of its own, because the threads that are
//! counted are the process's.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mirror_base::ShardId;
use mirror_control::{Config, Control, Directory, Mailboxes, Sources, Undeliverable};
use mirror_stream::report::Command;

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

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
}

#[test]
fn silent_and_slow_clients_cost_no_threads() {
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
    for _ in 0..20 {
        assert_eq!(ask(connect(address)), "HTTP/1.1 200 OK");
    }
    let before = threads();
    let silent: Vec<TcpStream> = (0..200).map(|_| connect(address)).collect();
    for client in silent.iter().take(100) {
        let mut client = client;
        client
            .write_all(b"GET /healthz HTTP/1.1\r\nX-Slow: ")
            .unwrap();
    }
    let begin = Instant::now();
    for _ in 0..20 {
        assert_eq!(ask(connect(address)), "HTTP/1.1 200 OK");
    }
    assert!(
        begin.elapsed() < Duration::from_secs(2),
        "{:?}",
        begin.elapsed()
    );
    let now = threads();
    assert!(
        now <= before + 8,
        "{before} threads before, {now} with 200 silent clients"
    );
    drop(silent);
    control.shutdown(Duration::from_secs(1));
}
