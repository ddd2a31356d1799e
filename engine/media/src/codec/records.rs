//! NAL units with length prefixes instead of start codes, and the decoder configuration records
//! that go with them (ISO 14496-15: `avcC` 5.3.3.1, `hvcC` 8.3.3.1). For parameter sets that
//! come outside the stream in this form.

use crate::Codec;

/// The NAL units of `data`, each with a big-endian length of `size` bytes before it. Ends at the
/// first length that runs past the end.
#[derive(Clone, Debug)]
pub struct LengthPrefixed<'a> {
    data: &'a [u8],
    size: usize,
}

/// See [`LengthPrefixed`]. `None` unless `size` is 1, 2 or 4.
pub fn length_prefixed(data: &[u8], size: u8) -> Option<LengthPrefixed<'_>> {
    matches!(size, 1 | 2 | 4).then_some(LengthPrefixed {
        data,
        size: usize::from(size),
    })
}

impl<'a> Iterator for LengthPrefixed<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (length, rest) = self.data.split_at_checked(self.size)?;
        let length = length
            .iter()
            .fold(0_usize, |sum, &b| sum << 8 | usize::from(b));
        let (nal, rest) = rest.split_at_checked(length)?;
        self.data = rest;
        Some(nal)
    }
}

/// A decoder configuration record.
#[derive(Clone, Debug)]
pub struct Record<'a> {
    /// Bytes of the lengths before NAL units of the stream.
    pub length_size: u8,
    /// Its parameter sets (and SEI NAL units), in its order.
    pub sets: Vec<&'a [u8]>,
}

/// Reads a record of H.264 (`avcC`) or HEVC (`hvcC`). `None` if it breaks the format.
pub fn record(codec: Codec, data: &[u8]) -> Option<Record<'_>> {
    match codec {
        Codec::H264 => avc(data),
        Codec::H265 => hevc(data),
        _ => None,
    }
}

fn size_of(byte: u8) -> Option<u8> {
    Some((byte & 3) + 1).filter(|&s| s != 3)
}

fn take_sets<'a>(data: &mut &'a [u8], count: u16, sets: &mut Vec<&'a [u8]>) -> Option<()> {
    for _ in 0..count {
        let (length, rest) = data.split_first_chunk::<2>()?;
        let (set, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        sets.push(set);
        *data = rest;
    }
    Some(())
}

fn avc(data: &[u8]) -> Option<Record<'_>> {
    let (&[1, _, _, _, lengths, count], mut rest) = data.split_first_chunk::<6>()? else {
        return None;
    };
    let mut sets = Vec::new();
    take_sets(&mut rest, u16::from(count & 0x1F), &mut sets)?;
    let (&count, mut rest) = rest.split_first()?;
    take_sets(&mut rest, u16::from(count), &mut sets)?;
    Some(Record {
        length_size: size_of(lengths)?,
        sets,
    })
}

fn hevc(data: &[u8]) -> Option<Record<'_>> {
    let (head, mut rest) = data.split_first_chunk::<23>()?;
    let &[1, .., lengths, arrays] = head else {
        return None;
    };
    let mut sets = Vec::new();
    for _ in 0..arrays {
        let (&[_, c0, c1], sets_of_array) = rest.split_first_chunk::<3>()?;
        rest = sets_of_array;
        take_sets(&mut rest, u16::from_be_bytes([c0, c1]), &mut sets)?;
    }
    Some(Record {
        length_size: size_of(lengths)?,
        sets,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::hex;

    #[test]
    fn nal_units_are_taken_by_their_lengths_and_overruns_end_the_walk() {
        let data = hex("000000026742000000016800000009ff");
        let units: Vec<&[u8]> = length_prefixed(&data, 4).unwrap().collect();
        assert_eq!(units, [&[0x67, 0x42][..], &[0x68]]);
        let data = hex("0002674200ff01");
        assert_eq!(length_prefixed(&data, 2).unwrap().count(), 1);
        assert!(length_prefixed(&data, 3).is_none());
        assert!(length_prefixed(&data, 0).is_none());
    }

    #[test]
    fn an_avc_record_gives_its_sets() {
        let data = hex("0142c01effe1000467 42c01e010002 68ce"
            .replace(' ', "")
            .as_str());
        let record = record(Codec::H264, &data).unwrap();
        assert_eq!(record.length_size, 4);
        assert_eq!(record.sets, [&hex("6742c01e")[..], &hex("68ce")]);
        for cut in 0..data.len() {
            assert!(super::record(Codec::H264, &data[..cut]).is_none(), "{cut}");
        }
    }

    #[test]
    fn an_hevc_record_gives_its_sets() {
        let mut data = vec![1; 21];
        data.extend(hex("0f03a000010002 4001a100010003420101a200010002 4401"
            .replace(' ', "")
            .as_str()));
        let record = record(Codec::H265, &data).unwrap();
        assert_eq!(record.length_size, 4);
        assert_eq!(
            record.sets,
            [&hex("4001")[..], &hex("420101"), &hex("4401")]
        );
        for cut in 0..data.len() {
            assert!(super::record(Codec::H265, &data[..cut]).is_none(), "{cut}");
        }
    }
}
