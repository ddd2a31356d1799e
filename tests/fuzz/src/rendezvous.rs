//! One end of a rendezvous (spec section 6) and whatever comes to its port: greetings, conclusions
//! and agreements of one peer or of many, to its socket ID or to none, with blocks that fit or any
//! bytes; data, keepalives and the end of it; keys decided one way or the other, or not at all.

use core::time::Duration;

use arbitrary::{Arbitrary, Unstructured};
use mirror_base::{Instant, PacketSequenceNumber, SlotRing};
use mirror_srt::{
    CallerSecurity, CipherPolicy, Config, Connection, Event, ListenerPolicy, RejectionCode,
    Security,
};

use crate::harness::{CALLER, IDS, address, control, packet, passphrase};

/// Most operations of one input.
const MAX_OPERATIONS: usize = 200;
/// Most datagrams that leave at once for one that came: a message, and what a connection that is
/// just made has to say.
const MAX_AT_ONCE: usize = 8;

#[derive(Debug, Arbitrary)]
enum Operation {
    /// So many milliseconds.
    Advance(u8),
    Handshake {
        kind: Kind,
        /// Of the peer; the same one, or another.
        other: bool,
        destination: Destination,
        version: Version,
        initial: u32,
        extension: u16,
        blocks: Vec<Block>,
    },
    Data {
        number: u32,
        length: u8,
    },
    Control {
        kind: u8,
        rest: Vec<u8>,
    },
    /// A decision on the question with this number, counted from the last one.
    Decide {
        back: u8,
        decision: Decision,
    },
    Raw(Vec<u8>),
    Close,
}

#[derive(Debug, Arbitrary)]
enum Kind {
    WaveAHand,
    Conclusion,
    Agreement,
    Rejection(u16),
    Any(u32),
}

#[derive(Debug, Arbitrary)]
enum Destination {
    Ours,
    Nobody,
    Any(u32),
}

#[derive(Debug, Arbitrary)]
enum Version {
    Five,
    Four,
    Any(u32),
}

#[derive(Debug, Arbitrary)]
enum Block {
    Request {
        latency: u32,
        flags: u8,
    },
    Response {
        latency: u32,
        flags: u8,
    },
    /// KMREQ or KMRSP.
    Keys {
        response: bool,
        content: Vec<u8>,
    },
    /// Our own KMREQ, echoed.
    Echo,
    Any {
        kind: u16,
        content: Vec<u8>,
    },
}

#[derive(Debug, Arbitrary)]
enum Decision {
    Clear,
    /// As the keys that came say.
    Negotiated,
    Refused(u8),
}

struct Meeting {
    connection: Connection,
    now: Instant,
    ring: SlotRing,
    /// The last question: its number and keys.
    question: (u32, Option<Vec<u8>>),
    /// The last KMREQ that left.
    asked: Vec<u8>,
    connected: bool,
    closed: bool,
    sent: u64,
}

/// A sequence of operations.
pub fn run(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let Ok((cookie, secured)) = input.arbitrary::<(u32, bool)>() else {
        return;
    };
    let mut meeting = Meeting::new(cookie, secured);
    meeting.drain();
    for _ in 0..MAX_OPERATIONS {
        let Ok(operation) = input.arbitrary::<Operation>() else {
            break;
        };
        if input.is_empty() {
            break;
        }
        meeting.perform(operation);
        meeting.drain();
    }
    meeting.finish();
}

/// The cookies of the peers; ours is the input's.
const COOKIES: [u32; 2] = [0x4000_0000, 0xC000_0000];
const PEERS: [u32; 2] = [0x11, 0x22];

impl Meeting {
    fn new(cookie: u32, secured: bool) -> Self {
        let now = Instant::from_millis(100_000);
        let security = secured
            .then(|| CallerSecurity::new(&passphrase(), None, CipherPolicy::Auto, false, [3; 32]));
        Meeting {
            connection: Connection::rendezvous(
                now,
                address(),
                IDS[CALLER],
                PacketSequenceNumber::new(7),
                cookie,
                "a",
                &Config::default(),
                0,
                security,
            ),
            now,
            ring: SlotRing::with_owned_chunks(4),
            question: (0, None),
            asked: Vec::new(),
            connected: false,
            closed: false,
            sent: 0,
        }
    }

    fn perform(&mut self, operation: Operation) {
        let own = IDS[CALLER];
        match operation {
            Operation::Advance(ms) => {
                self.now += Duration::from_millis(ms.into());
                self.connection.handle_timeout(self.now, &mut self.ring);
            }
            Operation::Handshake {
                kind,
                other,
                destination,
                version,
                initial,
                extension,
                blocks,
            } => {
                let peer = usize::from(other);
                let kind = match kind {
                    Kind::WaveAHand => 0,
                    Kind::Conclusion => 0xFFFF_FFFF,
                    Kind::Agreement => 0xFFFF_FFFE,
                    Kind::Rejection(code) => 1000 + u32::from(code),
                    Kind::Any(any) => any,
                };
                let version = match version {
                    Version::Five => 5,
                    Version::Four => 4,
                    Version::Any(any) => any,
                };
                let words = [
                    version,
                    extension.into(),
                    initial,
                    1500,
                    8192,
                    kind,
                    PEERS[peer],
                    COOKIES[peer],
                    0,
                    0,
                    0,
                    0,
                ];
                let mut cif = bytes(words);
                for block in blocks {
                    self.write(block, &mut cif);
                }
                let to = match destination {
                    Destination::Ours => own,
                    Destination::Nobody => 0,
                    Destination::Any(any) => any,
                };
                self.arrive(&packet(control(0, 0), 0, 9, to, &cif));
            }
            Operation::Data { number, length } => {
                let payload = vec![0x47; usize::from(length)];
                self.arrive(&packet(number >> 1, 3 << 30 | 1, 9, own, &payload));
            }
            Operation::Control { kind, rest } => {
                let (kind, subtype) = if kind & 0x80 == 0 {
                    (u16::from(kind) % 9, 0)
                } else {
                    (0x7FFF, u16::from(kind) & 7)
                };
                self.arrive(&packet(control(kind, subtype), 1, 9, own, &rest));
            }
            Operation::Decide { back, decision } => self.decide(back, &decision),
            Operation::Raw(raw) => self.arrive(&raw),
            Operation::Close => self.connection.close(self.now),
        }
    }

    fn write(&self, block: Block, out: &mut Vec<u8>) {
        let mut put = |kind: u16, content: &[u8]| {
            let whole = &content[..content.len() / 4 * 4];
            out.extend(kind.to_be_bytes());
            out.extend((whole.len() as u16 / 4).to_be_bytes());
            out.extend(whole);
        };
        match block {
            Block::Request { latency, flags } => {
                put(1, &bytes([0x0001_0501, flags.into(), latency]));
            }
            Block::Response { latency, flags } => {
                put(2, &bytes([0x0001_0501, flags.into(), latency]));
            }
            Block::Keys { response, content } => put(3 + u16::from(response), &content),
            Block::Echo => put(4, &self.asked),
            Block::Any { kind, content } => put(kind, &content),
        }
    }

    fn arrive(&mut self, datagram: &[u8]) {
        let _ = self
            .connection
            .handle_datagram(self.now, self.now, datagram, &mut self.ring);
    }

    fn decide(&mut self, back: u8, decision: &Decision) {
        let (number, material) = self.question.clone();
        let decision = match decision {
            Decision::Clear => Ok(Security::clear()),
            Decision::Refused(code) => Err(RejectionCode((*code).into())),
            Decision::Negotiated => {
                let passphrase = passphrase();
                let policy = ListenerPolicy {
                    passphrase: Some(&passphrase),
                    require: false,
                    cipher: CipherPolicy::Auto,
                };
                Security::negotiate(material.as_deref(), 0x0001_0501, &policy, [2; 32])
            }
        };
        let number = number.wrapping_sub(back.into());
        self.connection.answer_keys(self.now, number, decision);
    }

    /// What it has to say, which is never much.
    fn drain(&mut self) {
        while let Some(question) = self.connection.key_question() {
            let newer = question.number.wrapping_sub(self.question.0);
            assert_eq!(newer, 1, "each question once, in order");
            self.question = (question.number, question.key_material);
        }
        while let Some(event) = self.connection.poll_event() {
            match event {
                Event::Connected => {
                    assert!(!self.connected && !self.closed, "once, and before the end");
                    self.connected = true;
                }
                Event::Closed(_) => {
                    assert!(!self.closed, "once");
                    self.closed = true;
                }
            }
        }
        while let Some(delivery) = self.connection.poll_delivery(self.now, &self.ring) {
            assert!(self.ring.get(delivery.slot).is_some());
        }
        self.ring.release_before(self.connection.delivery_index());
        let mut out = [0; 1500];
        let mut count = 0;
        while let Some(len) = self.connection.poll_transmit(self.now, &mut out) {
            count += 1;
            assert!((16..=1472).contains(&len), "a datagram of {len} bytes");
            assert!(self.connected || count <= MAX_AT_ONCE, "not a flood");
            if let Some(at) = key_request(&out[..len]) {
                self.asked = out[at..len].to_vec();
            }
        }
        if !self.connected {
            self.sent += count as u64;
        }
        assert!(self.connection.latency() <= Config::default().max_latency);
    }

    fn finish(&mut self) {
        let begun = Instant::from_millis(100_000);
        let seconds = (self.now - begun).as_secs() + 1;
        assert!(
            self.sent <= 4 * 10 * seconds + 4 * seconds + 8,
            "{}",
            self.sent
        );
        // Whatever came: it ends, of itself or because it is told to.
        self.now += Duration::from_secs(31);
        self.connection.handle_timeout(self.now, &mut self.ring);
        self.drain();
        self.connection.close(self.now);
        self.drain();
        self.now += Duration::from_secs(60);
        self.connection.handle_timeout(self.now, &mut self.ring);
        self.drain();
        assert!(self.closed && self.connection.is_drained());
    }
}

/// Where the content of KMREQ begins in a conclusion of ours: it is the last block.
fn key_request(datagram: &[u8]) -> Option<usize> {
    let mut at = 16 + 48;
    while let Some(&[a, b, c, d]) = datagram.get(at..at + 4) {
        let words = usize::from(u16::from_be_bytes([c, d]));
        if [a, b] == [0, 3] {
            return Some(at + 4);
        }
        at += 4 + words * 4;
    }
    None
}

fn bytes(words: impl IntoIterator<Item = u32>) -> Vec<u8> {
    words.into_iter().flat_map(u32::to_be_bytes).collect()
}
