//! Writes MPEG-TS packets that are right unless the input says otherwise.

use mirror_media::ts::psi::crc32;

/// Packet IDs of elementary streams.
pub(crate) const PIDS: [u16; 8] = [0x100, 0x101, 0x102, 0x103, 0x104, 0x105, 0x1FFE, 0x20];
const PMT_PID: u16 = 0x1000;

/// A stream type with its descriptors.
pub(crate) const STREAMS: [(u8, &[u8]); 24] = [
    (0x1B, &[]),
    (0x24, &[]),
    (0x02, &[]),
    (0x0F, &[]),
    (0x11, &[]),
    (0x03, &[]),
    (0x81, &[]),
    (0x87, &[]),
    (0x06, b"\x05\x04AV01\x80\x04\x81\x04\x0C\x00"),
    (0x06, b"\x05\x04Opus\x7F\x02\x80\x02"),
    (0x06, b"\x6A\x01\x00"),
    (0x06, b"\x7A\x01\x00"),
    (0x06, b"\x05\x04KLVA"),
    (0x15, b"\x26\x09\x01\x00KLVAKLVA\x0F"),
    (0x86, b"\x05\x04CUEI"),
    (0x32, &[]),
    (0x06, b"\x05\x04VANC"),
    (0x06, b"\x05\x04HEVC"),
    (0x06, b"\x7C\x02\x51\x80"),
    (0x04, &[]),
    (0x01, &[]),
    (0xEA, &[]),
    (0x06, b"\x0A\x04eng\x00"),
    (0x05, &[]),
];

/// See the module's page.
#[derive(Default)]
pub(crate) struct Writer {
    pub(crate) bytes: Vec<u8>,
    counters: std::collections::BTreeMap<u16, u8>,
    version: u8,
}

impl Writer {
    /// One packet with as much of `data` as fits; returns how much. `field`: the adaptation
    /// field's flags and what follows.
    pub(crate) fn packet(&mut self, pid: u16, start: bool, field: &[u8], data: &[u8]) -> usize {
        let counter = self.counters.entry(pid).or_insert(15);
        let field = &field[..field.len().min(180)];
        let room = if field.is_empty() {
            184
        } else {
            183 - field.len()
        };
        let take = data.len().min(room);
        if take > 0 {
            *counter = (*counter + 1) % 16;
        }
        let stuffing = 184 - take;
        let control = u8::from(stuffing > 0) << 5 | u8::from(take > 0) << 4;
        let second = u8::from(start) << 6 | (pid >> 8 & 0x1F) as u8;
        self.bytes
            .extend([0x47, second, pid as u8, control | *counter]);
        if stuffing > 0 {
            self.bytes.push((stuffing - 1) as u8);
            let rest = stuffing - 1;
            self.bytes.extend(field);
            if rest > field.len() {
                let padding = rest - field.len();
                let first = if field.is_empty() { 0 } else { 0xFF };
                self.bytes.push(first);
                self.bytes.resize(self.bytes.len() + padding - 1, 0xFF);
            }
        }
        self.bytes.extend(&data[..take]);
        take
    }

    /// A section, whole: its length and CRC are set.
    pub(crate) fn section(&mut self, pid: u16, mut section: Vec<u8>) {
        section.truncate(4_090);
        section.resize(section.len().max(3), 0);
        let length = section.len() - 3 + 4;
        section[1] = section[1] & 0xF0 | (length >> 8) as u8;
        section[2] = length as u8;
        let crc = crc32(&section);
        section.extend(crc.to_be_bytes());
        self.data(pid, &[&[0], &section[..]].concat());
    }

    /// Several packets, padded with stuffing bytes.
    fn data(&mut self, pid: u16, data: &[u8]) {
        let mut data = data.to_vec();
        data.resize(data.len().next_multiple_of(184), 0xFF);
        for (n, chunk) in data.chunks(184).enumerate() {
            self.packet(pid, n == 0, &[], chunk);
        }
    }

    /// A PAT and a PMT with these of [`STREAMS`], on [`PIDS`].
    pub(crate) fn tables(&mut self, choice: &[u8]) {
        self.version = (self.version + 1) % 32;
        let version = 0xC1 | self.version << 1;
        let mut pat = vec![0, 0xB0, 0, 0, 1, version, 0, 0, 0, 1];
        pat.extend((0xE000 | PMT_PID).to_be_bytes());
        self.section(0, pat);
        let mut pmt = vec![2, 0xB0, 0, 0, 1, version, 0, 0, 0xE1, 0, 0xF0, 0];
        for (pid, kind) in PIDS.iter().zip(choice) {
            let (stream_type, descriptors) = STREAMS[usize::from(*kind) % STREAMS.len()];
            pmt.push(stream_type);
            pmt.extend((0xE000 | pid).to_be_bytes());
            pmt.extend([0xF0, descriptors.len() as u8]);
            pmt.extend(descriptors);
        }
        self.section(PMT_PID, pmt);
    }

    /// A PES packet with a PTS, and a DTS that is earlier.
    pub(crate) fn pes(&mut self, pid: u16, stream_id: u8, pts: u64, bounded: bool, data: &[u8]) {
        let mut pes = vec![0, 0, 1, stream_id, 0, 0, 0x84, 0xC0, 10];
        for (mark, time) in [(0x31, pts), (0x11, pts.wrapping_sub(3_000))] {
            pes.extend([
                mark | (time >> 29) as u8 & 0x0E,
                (time >> 22) as u8,
                1 | (time >> 14) as u8 & 0xFE,
                (time >> 7) as u8,
                1 | (time << 1) as u8 & 0xFE,
            ]);
        }
        pes.extend(data);
        if let (true, Ok(length)) = (bounded, u16::try_from(pes.len() - 6)) {
            pes[4..6].copy_from_slice(&length.to_be_bytes());
        }
        let mut at = 0;
        while at < pes.len() {
            at += self.packet(pid, at == 0, &[], &pes[at..]);
        }
    }
}
