//! Facts in which we rightly differ from those beside a file.

/// One of them.
#[derive(Debug)]
pub(crate) struct Difference {
    /// Which test.
    pub(crate) group: &'static str,
    /// What the file's name begins with.
    pub(crate) file: &'static str,
    /// The fact.
    pub(crate) fact: &'static str,
    /// What it is with us, as JSON.
    pub(crate) ours: &'static str,
    #[allow(dead_code)]
    pub(crate) why: &'static str,
}

/// All of them.
#[rustfmt::skip]
pub(crate) const DIFFERENCES: &[Difference] = &[
    Difference { group: "ts", file: "tr290_2.1_transport", fact: "0x100 access_units", ours: "39", why: "a unit lies in the packet with the error, which is not read" },
    Difference { group: "ts", file: "tr290_2.1_transport", fact: "0x100 access_units read", ours: "39", why: "the same" },
    Difference { group: "ts", file: "tr290_2.1_transport", fact: "continuity_errors", ours: "[]", why: "the facts' note asks that the gap which that packet leaves is not counted as well" },
    Difference { group: "ts", file: "tr290_2.6_scrambled", fact: "0x100 access_units", ours: "39", why: "a unit lies in the scrambled packets, which are not read" },
    Difference { group: "ts", file: "tr290_2.6_scrambled", fact: "0x100 access_units read", ours: "39", why: "the same" },
    Difference { group: "ts", file: "ts_192", fact: "0x101 access_units", ours: "26", why: "the file ends inside the last AAC frame, which is handed out as damaged" },
    Difference { group: "ts", file: "ts_204", fact: "0x101 access_units", ours: "26", why: "the same" },
    Difference { group: "ts", file: "ts_aac_frames", fact: "tr101290", ours: r#"["2.3"]"#, why: "its clock references are a quarter of a second apart" },
    Difference { group: "ts", file: "ts_aac_latm", fact: "tr101290", ours: r#"["2.3"]"#, why: "the same" },
    Difference { group: "ts", file: "ts_av1_draft_td", fact: "0x101 access_units read", ours: "40", why: "ffprobe counts PES packets; hidden frames have some of their own" },
    Difference { group: "ts", file: "ts_h264_klv", fact: "0x1f2 first_pts", ours: "81000", why: "asynchronous KLV has no times: the units get the program's clock" },
    Difference { group: "ts", file: "ts_h264_klv", fact: "0x1f2 start_pts", ours: "81000", why: "the same" },
    Difference { group: "ts", file: "ts_h264_scte35", fact: "0x1f4 access_units read", ours: "8", why: "ffprobe takes the two sections of one packet for one" },
    Difference { group: "ts", file: "ts_splice_same", fact: "0x100 rate", ours: r#""25/1""#, why: "ffprobe takes the jump of the times for a rate" },
    Difference { group: "rtp", file: "rtp24_gst_h264_loss_reorder_dup_rcvleg", fact: "payload_bytes", ours: "23021", why: "the facts count the bytes of the packet that came twice twice" },
    Difference { group: "rtp", file: "rtp43_gst_rtcp_fast_sr_rr_rcvleg", fact: "payload_bytes", ours: "22362", why: "the same" },
    Difference { group: "rtp", file: "rtp66", fact: "malformed", ours: "6", why: "the facts count only what is too short or of another version; three more have extensions or padding beyond their end" },
    Difference { group: "rtp", file: "rtp66", fact: "packets", ours: "10", why: "those three" },
    Difference { group: "rtp", file: "rtp66", fact: "distinct", ours: "10", why: "those three" },
    Difference { group: "rtp", file: "rtp66", fact: "lost", ours: "6", why: "those three" },
    Difference { group: "rtp", file: "rtp68", fact: "packets", ours: "18", why: "two packets jump back and forth and belong to no numbering (RFC 3550, A.1)" },
    Difference { group: "rtp", file: "rtp68", fact: "distinct", ours: "16", why: "the same, and one comes after its gap was given up" },
    Difference { group: "rtp", file: "rtp68", fact: "payload_bytes", ours: "176", why: "the same" },
    Difference { group: "srt", file: "srt83", fact: "outcome", ours: r#""rejected""#, why: "SRT 1.2 tells a rejection by SHUTDOWN alone" },
    Difference { group: "rtp", file: "rtp30", fact: "payload_sha256", ours: r#""6cf03aa4a24859ecb612b2b28b978f81724166da36c94d1de961afb3231b3efb""#, why: "the facts' hash is of the RTP payloads, with two bytes of header in each of 13 packets (RFC 4184, 4.1)" },
    Difference { group: "rtp", file: "rtp30", fact: "elementary_bytes", ours: "16128", why: "the same" },
    Difference { group: "rtp", file: "rtp63", fact: "access_units", ours: "10", why: "the facts were made without interleaving; ours are the NAL units that went in, in decoding order" },
    Difference { group: "rtp", file: "rtp63", fact: "payload_sha256", ours: r#""abb308667eb70cfda988a2b94661025afe1e756168275545f000b78e38778369""#, why: "the same" },
    Difference { group: "rtp", file: "rtp63", fact: "elementary_bytes", ours: "3498", why: "the same" },
    Difference { group: "rtp", file: "rtp24_gst_h264_loss_reorder_dup_rcvleg", fact: "markers", ours: "48", why: "the facts count the packet that came twice twice" },
    Difference { group: "rtp", file: "rtp43_gst_rtcp_fast_sr_rr_rcvleg", fact: "markers", ours: "46", why: "the same" },
    Difference { group: "rtp", file: "rtp47", fact: "merged markers", ours: "49", why: "the facts are of the stream that was sent: two packets came on neither path" },
    Difference { group: "rtp", file: "rtp47", fact: "merged distinct_timestamps", ours: "49", why: "those two" },
    Difference { group: "rtp", file: "rtp47", fact: "merged payload_bytes", ours: "23418", why: "those two" },
    Difference { group: "rtp", file: "rtp47", fact: "merged access_units", ours: "49", why: "those two" },
    Difference { group: "rtp", file: "rtp47", fact: "merged unit_types", ours: r#"{"1":47,"5":2,"6":1,"7":4,"8":4,"9":49}"#, why: "those two" },
    Difference { group: "rtp", file: "rtp47", fact: "merged nal_units", ours: "107", why: "those two" },
    Difference { group: "rtp", file: "rtp47", fact: "merged elementary_bytes", ours: "23832", why: "those two" },
    Difference { group: "rtp", file: "rtp47", fact: "merged bare_sha256", ours: r#""8e306e97247d85286c5636361e4057cde8de4d9fa9857679939b0fec55f15790""#, why: "those two" },
    Difference { group: "rtp", file: "rtp47", fact: "merged payload_sha256", ours: r#""39032ad20324ef8f779e207ddc14c2139f55b96c9a8e6a5245e20f29208429d9""#, why: "those two" },
    Difference { group: "rtp", file: "rtp66", fact: "distinct_timestamps", ours: "10", why: "the three packets whose extension or padding goes beyond their end" },
    Difference { group: "rtp", file: "rtp66", fact: "missing", ours: "[19,20,21,22,23,24]", why: "those three" },
    Difference { group: "rtp", file: "rtp66", fact: "listed", ours: "10", why: "those three" },
    Difference { group: "rtp", file: "rtp66", fact: "packet 21", ours: "null", why: "more padding than payload (RFC 3550, A.1)" },
    Difference { group: "rtp", file: "rtp66", fact: "packet 22", ours: "null", why: "more CSRCs than there are bytes" },
    Difference { group: "rtp", file: "rtp66", fact: "packet 24", ours: "null", why: "an extension that is longer than the packet" },
    Difference { group: "rtp", file: "rtp68", fact: "distinct_timestamps", ours: "16", why: "the two that jump, and the one that is late, are not taken" },
    Difference { group: "rtp", file: "rtp63", fact: "bare_sha256", ours: r#""f521c12f69efff1f8ce402f87e31eebfce51544e025cf76cf24e6a7119f3e0af""#, why: "without interleaving, as above" },
    Difference { group: "rtp", file: "rtp63", fact: "au", ours: "[[10000,[7,8,6,5],2626],[20800,[1],125],[13600,[1],7],[17200,[1],7],[31600,[1],225],[24400,[1],7],[28000,[1],7],[42400,[1],426],[35200,[1],8],[38800,[1],8]]", why: "the same" },
    Difference { group: "rtp", file: "rtp63", fact: "nal_units", ours: "13", why: "the same" },
    Difference { group: "rtp", file: "rtp63", fact: "nal types", ours: r#"{"1":9,"5":1,"6":1,"7":1,"8":1}"#, why: "the same" },
];
