//! Facts beside files that no comparison reads.

/// One of them.
#[derive(Debug)]
pub(crate) struct Unread {
    /// Which test; empty: all.
    pub(crate) group: &'static str,
    /// What the file's name begins with.
    pub(crate) file: &'static str,
    /// The kind of its place: see `coverage.rs`.
    pub(crate) fact: &'static str,
    #[allow(dead_code)]
    pub(crate) why: &'static str,
}

const fn everywhere(fact: &'static str, why: &'static str) -> Unread {
    Unread {
        group: "",
        file: "",
        fact,
        why,
    }
}

/// All of them.
#[rustfmt::skip]
pub(crate) const UNREAD: &[Unread] = &[
    everywhere("command", "how the file was made"),
    everywhere("commands[]", "how the file was made"),
    everywhere("made_by", "how the file was made"),
    everywhere("description", "a sentence"),
    everywhere("capture_filter.", "how the file was made"),
    everywhere("capture_filter._sndleg", "how the file was made"),
    everywhere("capture_filter._rcvleg", "how the file was made"),
    everywhere("capture_filter._orig", "how the file was made"),
    everywhere("capture_filter._rcv", "how the file was made"),
    Unread { group: "srt", file: "", fact: "passphrase", why: "given to inspect: that it opens the keys shows in the payload's hash" },
    Unread { group: "rtp", file: "rtp03", fact: "streams[].annexb_sha256_trailing_zeros_removed", why: "two hashes are compared: with zero bytes and parameter sets, and without either" },
    Unread { group: "rtp", file: "rtp03", fact: "streams[].note", why: "a sentence" },
    Unread { group: "annexb", file: "h264", fact: "poc_type", why: "how picture order counts are coded: the counts themselves are compared" },
    Unread { group: "annexb", file: "h264_startcode_mix", fact: "structure.what", why: "a sentence" },
    Unread { group: "ts", file: "tr290", fact: "expected_check.check", why: "a sentence: the numbers in it are compared" },
    Unread { group: "ts", file: "ts_pcr_jump", fact: "expected_check.check", why: "a sentence" },
    Unread { group: "ts", file: "tr290_1.1_sync_loss", fact: "expected_check.what", why: "a sentence" },
    Unread { group: "ts", file: "ts_192", fact: "expected_check.what", why: "a sentence" },
    Unread { group: "ts", file: "ts_204", fact: "expected_check.what", why: "a sentence" },
    Unread { group: "ts", file: "ts_unaligned", fact: "expected_check.what", why: "a sentence" },
    Unread { group: "ts", file: "tr290_2.1", fact: "expected_check.note", why: "a sentence" },
    Unread { group: "ts", file: "tr290_1.3_pat_gap", fact: "expected_check.pat_times_s_left[]", why: "what the maker left: how often the table comes is compared" },
    Unread { group: "ts", file: "tr290_1.5", fact: "expected_check.pmt_times_s_left[]", why: "the same" },
    Unread { group: "ts", file: "tr290_2.3_pcr_gap", fact: "expected_check.packets_without_pcr[]", why: "what the maker took out: the gap that this leaves is compared" },
    Unread { group: "ts", file: "tr290_2.4", fact: "expected_check.jitter_27mhz_ticks_by_packet.*", why: "TR 101 290 counts them: the count is compared" },
    Unread { group: "ts", file: "tr290_2.5", fact: "expected_check.from_s", why: "when the maker began: the PES packets without times are compared" },
    Unread { group: "ts", file: "tr290_2.5", fact: "expected_check.to_s", why: "the same" },
    Unread { group: "ts", file: "tr290_1.6", fact: "ffprobe_streams[].start_pts", why: "a time that ffprobe gives to a stream without packets" },
    Unread { group: "ts", file: "ts_psi", fact: "ffprobe_streams[].start_pts", why: "the same" },
    Unread { group: "ts", file: "ts_h264_scte35", fact: "scte35[].before_au", why: "where the maker put them: the packets that they lie in are compared" },
    Unread { group: "ts", file: "ts_aac_frames", fact: "structure.what", why: "a sentence" },
    Unread { group: "ts", file: "ts_splice_same", fact: "structure.what", why: "a sentence" },
    Unread { group: "ts", file: "ts_psi", fact: "structure.pat", why: "a sentence: sections, units and times are compared" },
    Unread { group: "ts", file: "ts_psi", fact: "structure.pmt1", why: "a sentence: sections, units and times are compared" },
    Unread { group: "ts", file: "ts_psi", fact: "structure.pmt1_next", why: "a sentence: sections, units and times are compared" },
    Unread { group: "ts", file: "ts_psi", fact: "structure.video", why: "a sentence: sections, units and times are compared" },
    Unread { group: "ts", file: "ts_splice_new", fact: "structure.first_part", why: "the same" },
    Unread { group: "ts", file: "ts_splice_new", fact: "structure.second_part", why: "the same" },
];
