//! A connection driven by a sequence of operations: both sides send, time passes, datagrams come
//! through or get lost, and packets are forged that look right, with fields near what the
//! connection expects, some of them from elsewhere; and a side's own address may change. After each
//! operation what must hold is checked (`harness`).

use core::time::Duration;

use arbitrary::{Arbitrary, Unstructured};
use mirror_srt::{CipherPolicy, KeyLength};

use crate::harness::{CALLER, IDS, LISTENER, Pair, control, packet};

/// Most operations of one input.
const MAX_OPERATIONS: usize = 200;

#[derive(Debug, Arbitrary)]
enum Operation {
    /// So many times 100 µs.
    Advance(u16),
    Send {
        by_caller: bool,
        length: u16,
        times: u8,
    },
    /// The next datagrams of this side reach the other one, or get lost.
    Pass {
        from_caller: bool,
        times: u8,
    },
    Lose {
        from_caller: bool,
        times: u8,
    },
    Forge {
        to_caller: bool,
        timestamp: Moment,
        packet: Forged,
    },
    Close {
        by_caller: bool,
    },
}

/// A timestamp: near the right one, or anything.
#[derive(Debug, Arbitrary)]
enum Moment {
    Near(i16),
    Any(u32),
}

/// A sequence number: near the first one, or anything.
#[derive(Debug, Arbitrary)]
enum Number {
    Near(i16),
    Any(u32),
}

#[derive(Debug, Arbitrary)]
enum Forged {
    Data {
        number: Number,
        flags: u8,
        message: u32,
        length: u8,
    },
    Handshake(Vec<u8>),
    Keepalive,
    Ack {
        ack: u8,
        number: Number,
        words: Vec<u32>,
    },
    Nak(Vec<(bool, Number)>),
    CongestionWarning,
    Shutdown,
    AckAck(u16),
    DropRequest {
        message: u32,
        first: Number,
        last: Number,
    },
    PeerError(u32),
    KeyMaterial {
        response: bool,
        message: Vec<u8>,
    },
    Other {
        kind: u16,
        subtype: u16,
        rest: Vec<u8>,
    },
    Raw(Vec<u8>),
}

/// A sequence of operations.
pub fn run(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let initial = match input.arbitrary::<u8>() {
        Ok(n) if n & 1 == 0 => 0x7FFF_FFFF - u32::from(n / 2),
        Ok(n) => u32::from(n) << 16 | u32::from(n / 2),
        Err(_) => return,
    };
    let mut pair = match initial & 3 {
        0 | 1 => Pair::new(initial),
        2 => Pair::secured(initial, CipherPolicy::Ctr, KeyLength::Aes128),
        _ => {
            let mut pair = Pair::secured(initial, CipherPolicy::Gcm, KeyLength::Aes256);
            // What is forged is not sealed: only what was sent may come out.
            for side in &mut pair.sides {
                side.only = Some(0x47);
            }
            pair
        }
    };
    for _ in 0..MAX_OPERATIONS {
        let Ok(operation) = input.arbitrary::<Operation>() else {
            break;
        };
        if input.is_empty() {
            break;
        }
        perform(&mut pair, operation);
    }
    pair.finish();
}

const fn side(is_caller: bool) -> usize {
    if is_caller { CALLER } else { LISTENER }
}

fn perform(pair: &mut Pair, operation: Operation) {
    match operation {
        Operation::Advance(time) => pair.advance(Duration::from_micros(u64::from(time) * 100)),
        Operation::Send {
            by_caller,
            length,
            times,
        } => {
            let payload = [0x47; 1316];
            for _ in 0..=times % 64 {
                pair.send(side(by_caller), &payload[..usize::from(length % 1317)]);
            }
        }
        Operation::Pass { from_caller, times } => {
            // Its address changes first.
            if times >= 0xF0 {
                pair.sides[side(from_caller)]
                    .address
                    .set_port(40_000 + u16::from(times & 3));
            }
            for _ in 0..=times {
                if !pair.pass(side(from_caller)) {
                    break;
                }
            }
        }
        Operation::Lose { from_caller, times } => {
            let wire = &mut pair.sides[side(from_caller)].wire;
            let count = usize::from(times).min(wire.len());
            wire.drain(..count);
        }
        Operation::Forge {
            to_caller,
            timestamp,
            packet,
        } => {
            let to = side(to_caller);
            let mut from = pair.sides[to].connection.peer();
            if let Moment::Near(offset) = &timestamp
                && offset & 7 == 7
            {
                from.set_port(40_000 + (offset >> 3 & 3).cast_unsigned());
            }
            let timestamp = match timestamp {
                Moment::Near(offset) => {
                    let clock = pair.now.as_micros().saturating_sub(1_000_000);
                    (clock as u32).wrapping_add_signed(i32::from(offset) * 100)
                }
                Moment::Any(any) => any,
            };
            let datagram = forge(pair, packet, timestamp, IDS[to]);
            pair.arrive_from(to, from, &datagram);
        }
        Operation::Close { by_caller } => {
            let now = pair.now;
            pair.sides[side(by_caller)].connection.close(now);
        }
    }
}

fn number(pair: &Pair, number: &Number) -> u32 {
    match *number {
        Number::Near(offset) => pair.initial.plus(i32::from(offset).cast_unsigned()).get(),
        Number::Any(any) => any,
    }
}

fn bytes(words: impl IntoIterator<Item = u32>) -> Vec<u8> {
    words.into_iter().flat_map(u32::to_be_bytes).collect()
}

fn forge(pair: &Pair, forged: Forged, timestamp: u32, to: u32) -> Vec<u8> {
    let of =
        |kind: u16, word1: u32, cif: &[u8]| packet(control(kind, 0), word1, timestamp, to, cif);
    match forged {
        Forged::Data {
            number: at,
            flags,
            message,
            length,
        } => {
            let word0 = number(pair, &at) & !(1 << 31);
            // Mostly whole messages, as live mode has them.
            let position = if flags & 0x40 == 0 { 0xC0 } else { flags };
            let top = u32::from(position & 0xC0 | flags & 0x3F) << 24;
            let word1 = top & !((1 << 26) - 1) | message & ((1 << 26) - 1);
            packet(
                word0,
                word1,
                timestamp,
                to,
                &vec![0x55; usize::from(length) * 6],
            )
        }
        Forged::Handshake(cif) => of(0, 0, &cif),
        Forged::Keepalive => of(1, 0, &[0; 4]),
        Forged::Ack {
            ack,
            number: at,
            words,
        } => {
            let first = number(pair, &at);
            of(
                2,
                u32::from(ack),
                &bytes(core::iter::once(first).chain(words)),
            )
        }
        Forged::Nak(list) => {
            let words = list
                .iter()
                .map(|(range, at)| u32::from(*range) << 31 | number(pair, at) & !(1 << 31));
            of(3, 0, &bytes(words))
        }
        Forged::CongestionWarning => of(4, 0, &[0; 4]),
        Forged::Shutdown => of(5, 0, &[0; 4]),
        Forged::AckAck(ack) => of(6, u32::from(ack), &[0; 4]),
        Forged::DropRequest {
            message,
            first,
            last,
        } => of(
            7,
            message,
            &bytes([number(pair, &first), number(pair, &last)]),
        ),
        Forged::PeerError(code) => of(8, code, &[0; 4]),
        Forged::KeyMaterial { response, message } => {
            let word0 = control(0x7FFF, if response { 4 } else { 3 });
            packet(word0, 0, timestamp, to, &message)
        }
        Forged::Other {
            kind,
            subtype,
            rest,
        } => packet(control(kind, subtype), 0, timestamp, to, &rest),
        Forged::Raw(raw) => raw,
    }
}
