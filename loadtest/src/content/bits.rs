//! Writing bit strings: fixed-length and Exp-Golomb codes (ITU-T H.264, 7.2 and 9.1; H.265, 9.2)
//! and the emulation prevention of a NAL unit (H.264, 7.4.1.1). Used when templates are made.

/// A bit string under construction.
#[derive(Clone, Debug, Default)]
pub struct BitWriter {
    bytes: Vec<u8>,
    /// Bits used in the last byte, 0–7; 0 = byte-aligned.
    used: u32,
}

impl BitWriter {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// u(n): the low `n` bits of `value`, most significant first.
    pub fn bits(&mut self, value: u64, n: u32) -> &mut Self {
        for i in (0..n).rev() {
            if self.used == 0 {
                self.bytes.push(0);
            }
            if let Some(last) = self.bytes.last_mut() {
                *last |= u8::from(value >> i & 1 == 1) << (7 - self.used);
            }
            self.used = (self.used + 1) % 8;
        }
        self
    }

    /// u(1).
    pub fn flag(&mut self, value: bool) -> &mut Self {
        self.bits(u64::from(value), 1)
    }

    /// ue(v).
    pub fn ue(&mut self, value: u32) -> &mut Self {
        let code = u64::from(value) + 1;
        let len = 64 - code.leading_zeros();
        self.bits(0, len - 1).bits(code, len)
    }

    /// se(v).
    pub fn se(&mut self, value: i32) -> &mut Self {
        let magnitude = value.unsigned_abs();
        self.ue(if value > 0 {
            magnitude * 2 - 1
        } else {
            magnitude * 2
        })
    }

    /// Zero bits up to the next byte boundary.
    pub fn align_zero(&mut self) -> &mut Self {
        self.used = 0;
        self
    }

    /// rbsp_trailing_bits(): a one, then zeros to the byte boundary.
    pub fn trailing(&mut self) -> &mut Self {
        self.flag(true).align_zero()
    }

    /// Whole bytes; the writer must be aligned.
    pub fn bytes_mut(&mut self) -> &mut Vec<u8> {
        debug_assert_eq!(self.used, 0, "not byte-aligned");
        &mut self.bytes
    }

    /// What was written.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// A NAL unit: `header`, then `rbsp` with emulation prevention bytes.
pub fn nal_unit(header: &[u8], rbsp: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(header.len() + rbsp.len() + 16);
    out.extend_from_slice(header);
    let mut zeros = 0;
    for &byte in rbsp {
        if zeros >= 2 && byte <= 3 {
            out.push(3);
            zeros = 0;
        }
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        out.push(byte);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_golomb_codes_are_those_of_the_standard() {
        // H.264, table 9-2: 0 → 1, 1 → 010, 2 → 011, 3 → 00100; se: 1 → 010, −1 → 011
        let mut w = BitWriter::new();
        w.ue(0).ue(1).ue(2).ue(3).trailing();
        assert_eq!(w.into_bytes(), [0b1010_0110, 0b0100_1000]);
        let mut w = BitWriter::new();
        w.se(1).se(-1).trailing();
        assert_eq!(w.into_bytes(), [0b0100_1110]);
    }

    #[test]
    fn start_codes_cannot_arise_in_a_nal_unit() {
        let nal = nal_unit(&[0x65], &[0, 0, 1, 0, 0, 0, 0, 3, 7]);
        assert_eq!(nal, [0x65, 0, 0, 3, 1, 0, 0, 3, 0, 0, 3, 3, 7]);
    }
}
