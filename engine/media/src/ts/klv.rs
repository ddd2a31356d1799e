//! KLV metadata (SMPTE ST 336) in PES packets: units of a 16-byte universal label, a BER length
//! and a value; in synchronous carriage wrapped in metadata AU cells (ISO 13818-1, 2.12.4).
//! Called by [`super::frames`], which finds the units, and by [`super::extract`].

/// How every universal label begins (ST 298).
pub const LABEL: [u8; 4] = [0x06, 0x0E, 0x2B, 0x34];
/// Bytes of a metadata AU cell's header.
pub(crate) const CELL_HEADER: usize = 5;
const LABEL_BYTES: usize = 16;

/// No KLV unit begins here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotKlv;

/// The bytes of the unit that begins with `head`, label and length included. `Ok(None)`: more of
/// it is needed.
///
/// # Errors
/// None begins there.
pub fn unit_bytes(head: &[u8]) -> Result<Option<usize>, NotKlv> {
    let known = head.len().min(LABEL.len());
    if head.get(..known) != LABEL.get(..known) {
        return Err(NotKlv);
    }
    let Some((_, length)) = head.split_at_checked(LABEL_BYTES) else {
        return Ok(None);
    };
    let Some((&first, rest)) = length.split_first() else {
        return Ok(None);
    };
    let more = usize::from(first & 0x7F);
    if first & 0x80 == 0 {
        return Ok(Some(LABEL_BYTES + 1 + more));
    }
    // Long form; longer than 4 bytes is no length of anything that exists, 0 is indefinite.
    if !(1..=4).contains(&more) {
        return Err(NotKlv);
    }
    let Some(bytes) = rest.get(..more) else {
        return Ok(None);
    };
    let value = bytes.iter().fold(0, |sum, &b| sum << 8 | u64::from(b));
    let value = usize::try_from(value).map_err(|_| NotKlv)?;
    Ok(Some(LABEL_BYTES + 1 + more + value))
}

/// A metadata AU cell's header (2.12.4.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Cell {
    /// Whether a unit begins with its data (`cell_fragment_indication` 11 or 10).
    pub(crate) first: bool,
    /// Whether it holds the whole unit.
    pub(crate) whole: bool,
    /// Bytes of data behind the header.
    pub(crate) bytes: usize,
}

/// Reads a cell's header.
pub(crate) const fn cell(header: [u8; CELL_HEADER]) -> Cell {
    let [_service, _sequence, flags, high, low] = header;
    Cell {
        first: flags & 0x80 != 0,
        whole: flags & 0xC0 == 0xC0,
        bytes: (high as usize) << 8 | low as usize,
    }
}

/// A unit that several cells carry is a piece of the elementary stream from the first cell's
/// header on: takes the headers out of what lies in `out` from `from` on.
pub(crate) fn unwrap_cells(out: &mut Vec<u8>, from: usize) {
    if out.get(from..).is_none_or(|unit| unit.starts_with(&LABEL)) {
        return;
    }
    let (mut read, mut write) = (from, from);
    while let Some(header) = out.get(read..).and_then(|rest| rest.first_chunk()) {
        let bytes = cell(*header).bytes;
        read += CELL_HEADER;
        let end = (read + bytes).min(out.len());
        out.copy_within(read..end, write);
        write += end - read;
        read = end;
    }
    out.truncate(write);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_units_are_read_in_all_their_forms() {
        let head = |length: &[u8]| {
            let mut bytes = vec![
                6, 0x0E, 0x2B, 0x34, 2, 0x0B, 1, 1, 0x0E, 1, 3, 1, 1, 0, 0, 0,
            ];
            bytes.extend(length);
            unit_bytes(&bytes)
        };
        assert_eq!(head(&[]), Ok(None));
        assert_eq!(head(&[5]), Ok(Some(22)));
        assert_eq!(head(&[0x81, 200]), Ok(Some(218)));
        assert_eq!(head(&[0x82, 1]), Ok(None));
        assert_eq!(head(&[0x82, 1, 2]), Ok(Some(19 + 258)));
        assert_eq!(head(&[0x80]), Err(NotKlv));
        assert_eq!(head(&[0xFF]), Err(NotKlv));
        assert_eq!(unit_bytes(&[6, 0x0E]), Ok(None));
        assert_eq!(unit_bytes(&[6, 0x0F]), Err(NotKlv));
    }

    #[test]
    fn the_headers_of_several_cells_are_taken_out() {
        let mut out = vec![9, 9];
        out.extend([0, 0, 0x80, 0, 3, 6, 0x0E, 0x2B]);
        out.extend([0, 1, 0x40, 0, 2, 0x34, 7]);
        unwrap_cells(&mut out, 2);
        assert_eq!(out, [9, 9, 6, 0x0E, 0x2B, 0x34, 7]);
        // A length that runs past the end takes what there is.
        let mut out = vec![0, 0, 0x80, 0xFF, 0xFF, 1];
        unwrap_cells(&mut out, 0);
        assert_eq!(out, [1]);
    }
}
