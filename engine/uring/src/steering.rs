//! Which socket of a `SO_REUSEPORT` group gets a datagram: the classic-BPF programs of design
//! section 3 and D4. [`bind_group`](crate::bind_group) attaches one after all sockets are bound.
//!
//! Offset 0 is the first byte of the UDP payload, and the "packet length" is the payload's. A
//! result is an index in bind order; one beyond the group makes the kernel choose by its hash of
//! the addresses. A load past the end would make the program return 0, hence shard 0: so every
//! program asks for the length first.

/// What a SO_REUSEPORT group steers by (design section 3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Steering {
    /// Bytes 12–15 mod shards; destination 0 and runts: the kernel's hash.
    Srt,
    /// RTP: SSRC in bytes 8–11; RTCP on the same port (byte 1 in 192–223): bytes 4–7.
    Rtp,
    /// RTCP: sender's SSRC in bytes 4–7.
    Rtcp,
}

const LOAD_WORD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const LOAD_BYTE: u16 = 0x30; // BPF_LD | BPF_B | BPF_ABS
const LOAD_LENGTH: u16 = 0x80; // BPF_LD | BPF_W | BPF_LEN
const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
const IF_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const IF_AT_LEAST: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
const MODULO: u16 = 0x94; // BPF_ALU | BPF_MOD | BPF_K
const RETURN: u16 = 0x06; // BPF_RET | BPF_K
const RETURN_A: u16 = 0x16; // BPF_RET | BPF_A

/// Beyond every group: the kernel's hash decides.
const BY_HASH: u32 = 0xffff_ffff;

const fn op(code: u16, yes: u8, no: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter {
        code,
        jt: yes,
        jf: no,
        k,
    }
}

/// The program for a group of `shards` sockets (at least 1).
pub(crate) fn program(steering: Steering, shards: u32) -> Vec<libc::sock_filter> {
    let shards = shards.max(1);
    match steering {
        // draft-sharabayko-srt-01, 3: the destination socket ID is the header's fourth word.
        Steering::Srt => vec![
            op(LOAD_LENGTH, 0, 0, 0),
            op(IF_AT_LEAST, 0, 4, 16),
            op(LOAD_WORD, 0, 0, 12),
            op(IF_EQUAL, 2, 0, 0),
            op(MODULO, 0, 0, shards),
            op(RETURN_A, 0, 0, 0),
            op(RETURN, 0, 0, BY_HASH),
        ],
        // RFC 3550, 5.1 and 6.4; RFC 5761, 4: packet types 192–223 are RTCP.
        Steering::Rtp => vec![
            op(LOAD_LENGTH, 0, 0, 0),
            op(IF_AT_LEAST, 0, 10, 8),
            op(LOAD_BYTE, 0, 0, 1),
            op(IF_AT_LEAST, 0, 3, 192),
            op(IF_AT_LEAST, 2, 0, 224),
            op(LOAD_WORD, 0, 0, 4),
            op(JUMP, 0, 0, 3),
            op(LOAD_LENGTH, 0, 0, 0),
            op(IF_AT_LEAST, 0, 3, 12),
            op(LOAD_WORD, 0, 0, 8),
            op(MODULO, 0, 0, shards),
            op(RETURN_A, 0, 0, 0),
            op(RETURN, 0, 0, BY_HASH),
        ],
        Steering::Rtcp => vec![
            op(LOAD_LENGTH, 0, 0, 0),
            op(IF_AT_LEAST, 0, 3, 8),
            op(LOAD_WORD, 0, 0, 4),
            op(MODULO, 0, 0, shards),
            op(RETURN_A, 0, 0, 0),
            op(RETURN, 0, 0, BY_HASH),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a program as the kernel would; a load past the end returns 0.
    fn run(program: &[libc::sock_filter], packet: &[u8]) -> u32 {
        let (mut at, mut a) = (0, 0u32);
        loop {
            let op = program[at];
            at += 1;
            let k = op.k as usize;
            let mut jump = |taken: bool| at += usize::from(if taken { op.jt } else { op.jf });
            match op.code {
                LOAD_LENGTH => a = packet.len() as u32,
                LOAD_BYTE => match packet.get(k) {
                    Some(&byte) => a = byte.into(),
                    None => return 0,
                },
                LOAD_WORD => match packet.get(k..k + 4) {
                    Some(word) => a = u32::from_be_bytes(word.try_into().unwrap()),
                    None => return 0,
                },
                JUMP => at += k,
                IF_EQUAL => jump(a == op.k),
                IF_AT_LEAST => jump(a >= op.k),
                MODULO => a %= op.k,
                RETURN => return op.k,
                RETURN_A => return a,
                other => panic!("unknown operation {other:#x}"),
            }
        }
    }

    fn packet(bytes: usize, at: usize, word: u32) -> Vec<u8> {
        let mut packet = vec![0; bytes];
        packet[at..at + 4].copy_from_slice(&word.to_be_bytes());
        packet
    }

    #[test]
    fn srt_goes_by_destination_id_and_what_has_none_by_hash() {
        for shards in 1..=5 {
            let program = program(Steering::Srt, shards);
            for id in [1, 2, 3, 4, 5, 0x3fff_ffff, 0x7fff_ffff, u32::MAX] {
                assert_eq!(run(&program, &packet(16, 12, id)), id % shards);
                assert_eq!(run(&program, &packet(1332, 12, id)), id % shards);
            }
            assert_eq!(run(&program, &packet(1332, 12, 0)), BY_HASH);
            for runt in 0..16 {
                assert_eq!(run(&program, &vec![0xff; runt]), BY_HASH, "{runt} bytes");
            }
        }
    }

    #[test]
    fn rtp_goes_by_ssrc_and_rtcp_on_its_port_by_the_senders_ssrc() {
        let program = program(Steering::Rtp, 3);
        for payload_type in 0..=255u8 {
            let mut datagram = packet(1328, 8, 0xabcd_ef07);
            datagram[4..8].copy_from_slice(&0x0102_0305_u32.to_be_bytes());
            datagram[1] = payload_type;
            let ssrc = if (192..=223).contains(&payload_type) {
                0x0102_0305
            } else {
                0xabcd_ef07
            };
            assert_eq!(
                run(&program, &datagram),
                ssrc % 3,
                "second byte {payload_type}"
            );
        }
        for runt in 0..8 {
            assert_eq!(run(&program, &vec![0xc8; runt]), BY_HASH);
        }
        assert_eq!(
            run(&program, &[0x80; 11]),
            BY_HASH,
            "too short for an RTP header"
        );
        let mut bye = packet(8, 4, 8);
        bye[1] = 203;
        assert_eq!(run(&program, &bye), 2, "an RTCP packet may be 8 bytes");
    }

    #[test]
    fn rtcp_goes_by_the_senders_ssrc() {
        let program = program(Steering::Rtcp, 4);
        assert_eq!(run(&program, &packet(28, 4, 7)), 3);
        assert_eq!(run(&program, &[0xff; 7]), BY_HASH);
    }
}
