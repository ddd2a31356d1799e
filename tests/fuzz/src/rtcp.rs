//! RTCP: compound packets, reduced-size ones (RFC 5506), reports, descriptions and feedback
//! (RFC 3550, 6; RFC 4585; RFC 5104; RFC 3611).

use mirror_rtp::rtcp;

/// A datagram.
pub fn run(data: &[u8]) {
    let _ = rtcp::sender_ssrc(data);
    let Ok(packets) = rtcp::parse(data) else {
        return;
    };
    let mut bytes = 0;
    for packet in packets {
        bytes += 4 + packet.body.len();
        assert!(bytes <= data.len() && packet.count <= 31, "{packet:?}");
        let _ = (packet.sender_info(), packet.ssrc(), packet.leaving_reason());
        assert!(packet.report_blocks().count() <= 31);
        assert!(packet.leaving().count() <= 31 && packet.described().count() <= 31);
        let items: usize = packet.chunks().map(|chunk| chunk.items().count()).sum();
        assert!(items * 2 <= packet.body.len(), "{packet:?}");
        for ssrc in packet.described() {
            assert!(packet.cname(ssrc).is_none_or(|name| name.len() <= 255));
            let _ = packet.receiver_delay(ssrc);
        }
        let _ = (packet.feedback_source(), packet.is_picture_loss());
        let mut asked = 0;
        for pair in packet.nacks() {
            asked += pair.sequences().count();
        }
        assert!(asked <= data.len() * 17 / 4);
        assert!(packet.full_intra_requests().count() * 8 <= data.len());
        for block in packet.report_blocks() {
            let _ = rtcp::round_trip(block.jitter, block.last_sr, block.delay_since_last_sr);
        }
    }
}
