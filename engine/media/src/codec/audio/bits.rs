//! A bounded bit reader without emulation prevention, for audio configurations and LATM.

/// Reads bits, most significant first; every read past the end is `None`.
#[derive(Clone, Debug)]
pub(crate) struct Bits<'a> {
    data: &'a [u8],
    at: usize,
}

impl<'a> Bits<'a> {
    pub(crate) const fn new(data: &'a [u8]) -> Self {
        Bits { data, at: 0 }
    }

    /// `n` bits (at most 32), unsigned.
    pub(crate) fn u(&mut self, n: u32) -> Option<u32> {
        let mut value = 0u64;
        let mut wanted = n.min(32);
        while wanted > 0 {
            let byte = *self.data.get(self.at / 8)?;
            let left = 8 - (self.at % 8) as u32;
            let take = left.min(wanted);
            let part = u32::from(byte) >> (left - take) & ((1 << take) - 1);
            value = value << take | u64::from(part);
            self.at += take as usize;
            wanted -= take;
        }
        u32::try_from(value).ok()
    }

    /// `n` bits (at most 8).
    pub(crate) fn byte(&mut self, n: u32) -> Option<u8> {
        u8::try_from(self.u(n.min(8))?).ok()
    }

    /// One bit.
    pub(crate) fn flag(&mut self) -> Option<bool> {
        Some(self.u(1)? != 0)
    }

    /// Passes over `n` bits that must be there.
    pub(crate) fn skip(&mut self, n: usize) -> Option<()> {
        self.at = self.at.checked_add(n).filter(|&at| at <= self.end())?;
        Some(())
    }

    /// Bits read so far.
    pub(crate) const fn position(&self) -> usize {
        self.at
    }

    /// All bits.
    pub(crate) const fn end(&self) -> usize {
        self.data.len() * 8
    }

    /// Goes on to the next whole byte.
    pub(crate) const fn align(&mut self) {
        self.at = self.at.div_ceil(8) * 8;
    }
}
