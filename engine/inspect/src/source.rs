//! Where a file's bytes come from. The room does no I/O: whoever calls it says how bytes are read
//! ([`Source`]), and every reader here holds no more of them than a [`Window`].

/// Bytes that can be read at any place: a file, or a slice.
pub trait Source {
    /// How many there are.
    fn size(&self) -> u64;

    /// Reads at `offset` into `out`; returns how many bytes, 0 only at the end.
    ///
    /// # Errors
    /// Why nothing can be read, for people.
    fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<usize, String>;
}

impl Source for &[u8] {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<usize, String> {
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let rest = self.get(from..).unwrap_or_default();
        let bytes = rest.len().min(out.len());
        for (to, from) in out.iter_mut().zip(rest) {
            *to = *from;
        }
        Ok(bytes)
    }
}

impl Source for Vec<u8> {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<usize, String> {
        self.as_slice().read_at(offset, out)
    }
}

/// Bytes that are read at once.
const READ: usize = 1 << 20;

/// What is held of a source: a piece that moves forward over it.
pub(crate) struct Window<'s> {
    source: &'s dyn Source,
    held: Vec<u8>,
    /// Where the present place lies in `held`.
    at: usize,
    /// Offset of the first byte that is not held yet.
    next: u64,
    is_at_end: bool,
}

impl<'s> Window<'s> {
    /// At the beginning.
    pub(crate) const fn new(source: &'s dyn Source) -> Self {
        Window {
            source,
            held: Vec::new(),
            at: 0,
            next: 0,
            is_at_end: false,
        }
    }

    /// The next `bytes` bytes, fewer only at the end.
    pub(crate) fn peek(&mut self, bytes: usize) -> Result<&[u8], String> {
        if self.held.len() - self.at < bytes && !self.is_at_end {
            self.held.drain(..self.at);
            self.at = 0;
            while self.held.len() < bytes && !self.is_at_end {
                let had = self.held.len();
                self.held.resize(bytes.max(had + READ), 0);
                let out = self.held.get_mut(had..).unwrap_or_default();
                let read = self.source.read_at(self.next, out)?;
                self.held.truncate(had + read);
                self.next += read as u64;
                self.is_at_end = read == 0;
            }
        }
        let rest = self.held.get(self.at..).unwrap_or_default();
        Ok(rest.get(..bytes).unwrap_or(rest))
    }

    /// Goes on by `bytes` bytes, which were peeked at.
    pub(crate) fn skip(&mut self, bytes: usize) {
        self.at = (self.at + bytes).min(self.held.len());
    }

    /// Where the next byte lies in the file.
    pub(crate) const fn offset(&self) -> u64 {
        self.next - (self.held.len() - self.at) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hands out three bytes at a time.
    struct Slow(Vec<u8>);

    impl Source for Slow {
        fn size(&self) -> u64 {
            self.0.len() as u64
        }

        fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<usize, String> {
            let few = out.len().min(3);
            self.0.as_slice().read_at(offset, &mut out[..few])
        }
    }

    #[test]
    fn a_window_shows_every_byte_once() {
        let source = Slow((0..=255).collect());
        let mut window = Window::new(&source);
        let mut seen: Vec<u8> = Vec::new();
        loop {
            assert_eq!(window.offset(), seen.len() as u64);
            let piece = window.peek(10).unwrap().to_vec();
            if piece.is_empty() {
                break;
            }
            assert!(piece.len() == 10 || seen.len() == 250);
            seen.extend(&piece);
            window.skip(piece.len());
        }
        assert_eq!(seen, source.0);
    }
}
