//! RTP headers (RFC 3550, 5.1) and their extensions (RFC 8285).

use mirror_rtp::{Header, contributors, extensions, is_rtcp};

/// A datagram.
pub fn run(data: &[u8]) {
    let _ = is_rtcp(data);
    assert!(contributors(data).count() <= 15);
    let mut count = 0;
    for element in extensions(data) {
        count += 1;
        assert!(
            count <= data.len() && element.data.len() <= 255,
            "{element:?}"
        );
    }
    let Ok(header) = Header::parse(data) else {
        return;
    };
    let (start, end) = (
        usize::from(header.payload_offset),
        usize::from(header.payload_end),
    );
    assert!(
        (12..=end).contains(&start) && end <= data.len(),
        "{header:?}"
    );
    assert_eq!(usize::from(header.payload_len()), end - start);
    assert_eq!(header.flags() & 0x7F, header.payload_type);
    assert_eq!(data[0] >> 6, 2);
    assert_eq!(contributors(data).count(), usize::from(data[0] & 15));
    // Padding aside, what lies before the payload is all that tells where it begins.
    let mut without = data[..end].to_vec();
    without[0] &= !0x20;
    assert_eq!(Header::parse(&without), Ok(header));
}
