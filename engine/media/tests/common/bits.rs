//! Writes NAL units bit by bit.

#[derive(Default)]
pub struct Bits(Vec<bool>);

impl Bits {
    pub fn u(&mut self, n: u32, value: u32) -> &mut Self {
        self.0.extend((0..n).rev().map(|i| value >> i & 1 != 0));
        self
    }

    pub fn ue(&mut self, value: u32) -> &mut Self {
        let bits = u32::BITS - (value + 1).leading_zeros();
        self.u(bits - 1, 0).u(bits, value + 1)
    }

    /// With start code, header and emulation prevention.
    pub fn nal(&mut self, header: u8) -> Vec<u8> {
        self.u(1, 1);
        let mut nal = vec![0, 0, 1, header];
        for byte in self.0.chunks(8).map(|c| {
            c.iter()
                .enumerate()
                .fold(0, |b, (i, &x)| b | u8::from(x) << (7 - i))
        }) {
            if byte <= 3 && nal.len() > 5 && nal.ends_with(&[0, 0]) {
                nal.push(3);
            }
            nal.push(byte);
        }
        nal
    }
}
