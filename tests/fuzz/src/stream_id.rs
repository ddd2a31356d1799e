//! Stream IDs (spec section 19): the input is the string as a peer sends it.

use mirror_srt::StreamIdFields;

/// One string.
pub fn run(data: &[u8]) {
    let fields = StreamIdFields::parse(data);
    let room = data.len() * 4 + 64;
    assert!(fields.resource.len() <= room);
    assert!(fields.others.len() <= data.len());
    // The same string means the same each time.
    assert_eq!(
        format!("{fields:?}"),
        format!("{:?}", StreamIdFields::parse(data))
    );
}
