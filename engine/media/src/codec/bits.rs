//! A bounded bit reader over NAL unit bytes which removes emulation prevention as it goes
//! (ISO 14496-10, 7.3.1 and 9.1; ISO 23008-2, 7.3.1.1 and 9.2). Every read past the end is `None`.

/// Reads bits, most significant first.
#[derive(Clone, Debug)]
pub struct BitReader<'a> {
    data: &'a [u8],
    at: usize,
    zeros: u8,
    cache: u64,
    available: u32,
    escaped: bool,
}

impl<'a> BitReader<'a> {
    /// Over the bytes that follow a NAL unit's header.
    pub const fn new(data: &'a [u8]) -> Self {
        BitReader {
            data,
            at: 0,
            zeros: 0,
            cache: 0,
            available: 0,
            escaped: true,
        }
    }

    /// Over bytes without emulation prevention: what [`unescape`] made, or MPEG-2 video.
    pub const fn raw(data: &'a [u8]) -> Self {
        let mut reader = BitReader::new(data);
        reader.escaped = false;
        reader
    }

    fn refill(&mut self) {
        while self.available <= 56 {
            let Some(&byte) = self.data.get(self.at) else {
                return;
            };
            self.at += 1;
            if self.zeros >= 2 && byte == 3 && self.escaped {
                self.zeros = 0;
                continue;
            }
            self.zeros = if byte == 0 {
                self.zeros.saturating_add(1)
            } else {
                0
            };
            self.cache |= u64::from(byte) << (56 - self.available);
            self.available += 8;
        }
    }

    /// `n` bits (at most 32), unsigned.
    pub fn u(&mut self, n: u32) -> Option<u32> {
        if n == 0 {
            return Some(0);
        }
        if n > 32 {
            return None;
        }
        if self.available < n {
            self.refill();
            if self.available < n {
                return None;
            }
        }
        let value = self.cache >> (64 - n);
        self.cache <<= n;
        self.available -= n;
        u32::try_from(value).ok()
    }

    /// `n` bits (at most 8).
    pub fn byte(&mut self, n: u32) -> Option<u8> {
        u8::try_from(self.u(n)?).ok()
    }

    /// One bit.
    pub fn flag(&mut self) -> Option<bool> {
        Some(self.u(1)? != 0)
    }

    /// Passes over `n` bits.
    pub fn skip(&mut self, mut n: u32) -> Option<()> {
        while n > 0 {
            let step = n.min(32);
            self.u(step)?;
            n -= step;
        }
        Some(())
    }

    /// Exp-Golomb, unsigned; more than 31 leading zeros are an error (9.1: values stay below 2^32 − 1).
    pub fn ue(&mut self) -> Option<u32> {
        if self.available < 32 {
            self.refill();
        }
        let zeros = self.cache.leading_zeros();
        if zeros > 31 || zeros >= self.available {
            return None;
        }
        self.u(zeros + 1)?;
        let rest = self.u(zeros)?;
        Some((1_u32 << zeros) - 1 + rest)
    }

    /// Exp-Golomb, unsigned, at most `max`.
    pub fn ue_max(&mut self, max: u32) -> Option<u32> {
        self.ue().filter(|&v| v <= max)
    }

    /// Exp-Golomb, signed.
    pub fn se(&mut self) -> Option<i64> {
        let k = i64::from(self.ue()?);
        Some(if k % 2 == 1 { k / 2 + 1 } else { -(k / 2) })
    }
}

/// Appends `data` to `out` without its emulation prevention bytes.
pub fn unescape(mut data: &[u8], out: &mut Vec<u8>) {
    while let Some(at) = memchr::memmem::find(data, &[0, 0, 3]) {
        let (before, rest) = data.split_at(at + 2);
        out.extend_from_slice(before);
        data = rest.get(1..).unwrap_or_default();
    }
    out.extend_from_slice(data);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pack(bits: &str) -> Vec<u8> {
        bits.as_bytes()
            .chunks(8)
            .map(|c| {
                c.iter()
                    .enumerate()
                    .fold(0, |b, (i, &x)| b | ((x - b'0') << (7 - i)))
            })
            .collect()
    }

    #[test]
    fn exp_golomb_and_emulation_prevention_follow_the_vectors() {
        let vectors: serde_json::Value = serde_json::from_str(include_str!(
            "../../../../tests/vectors/ts_and_bitstream.json"
        ))
        .unwrap();
        for v in vectors["exp_golomb"].as_array().unwrap() {
            let bytes = pack(v["bits"].as_str().unwrap());
            assert_eq!(BitReader::new(&bytes).ue().map(u64::from), v["ue"].as_u64());
            assert_eq!(BitReader::new(&bytes).se(), v["se"].as_i64());
        }
        for v in vectors["emulation_prevention"].as_array().unwrap() {
            let rbsp = crate::tests::hex(v["rbsp"].as_str().unwrap());
            let ebsp = crate::tests::hex(v["ebsp"].as_str().unwrap());
            let mut reader = BitReader::new(&ebsp);
            for byte in &rbsp {
                assert_eq!(reader.byte(8), Some(*byte));
            }
            let mut out = Vec::new();
            unescape(&ebsp, &mut out);
            assert_eq!(out, rbsp);
        }
    }

    #[test]
    fn bytes_without_emulation_prevention_are_read_as_they_are() {
        let mut reader = BitReader::raw(&[0, 0, 3, 1]);
        assert_eq!(reader.u(32), Some(0x0000_0301));
    }

    #[test]
    fn reading_past_the_end_is_none() {
        let mut reader = BitReader::new(&[0x80]);
        assert_eq!(reader.u(8), Some(0x80));
        assert_eq!(reader.u(1), None);
        assert_eq!(BitReader::new(&[0; 20]).ue(), None);
        assert_eq!(BitReader::new(&[]).ue(), None);
        assert_eq!(
            BitReader::new(&[0, 0, 0, 1, 0xFF, 0xFF, 0xFF, 0xFF]).ue(),
            Some(u32::MAX - 1).filter(|_| true)
        );
    }
}
