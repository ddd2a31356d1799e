//! What to expect of each capture: the recorded outcome, unless a line here says otherwise and
//! why.

use mirror_srt::{CloseReason, RejectionCode};

use crate::setup::Role;

/// What a replay comes to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Course {
    /// What was recorded.
    Recorded,
    /// Our listener rejects what the recorded one accepted. A request for a packet filter or a
    /// group is then played once more without it, and comes to the recorded outcome as far as
    /// that is possible.
    Refused(RejectionCode),
    /// Our listener accepts what the recorded one rejected.
    Served,
    /// Our caller ends so.
    Ends(CloseReason),
    /// Not played here, because.
    #[allow(dead_code)]
    Elsewhere(&'static str),
}

/// A capture.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) listener: Course,
    pub(crate) caller: Course,
}

const fn recorded(name: &'static str) -> Row {
    Row {
        name,
        listener: Course::Recorded,
        caller: Course::Recorded,
    }
}

const fn row(name: &'static str, listener: Course, caller: Course) -> Row {
    Row {
        name,
        listener,
        caller,
    }
}

/// Packet filters and groups are refused until the engine has them.
const FILTERED: Course = Course::Refused(RejectionCode::FILTER);
const GROUPED: Course = Course::Refused(RejectionCode::GROUP);
/// Peers before libsrt 1.3 are refused by policy.
const VERSION_4: Course = Course::Refused(RejectionCode::VERSION);
/// File mode is not what this engine is for.
const FILE_MODE: Course = Course::Refused(RejectionCode::CONGESTION);
const RENDEZVOUS: Course = Course::Elsewhere("rendezvous makes no session: see rendezvous.rs");

/// Every capture, in the order of their names.
#[rustfmt::skip]
pub(crate) const CAPTURES: &[Row] = &[
    recorded("srt01_clear_caller_sends"),
    recorded("srt02_clear_listener_sends"),
    recorded("srt03_aes128"),
    recorded("srt04_aes256"),
    recorded("srt05_aes192_listener_sends"),
    recorded("srt06_streamid_acl"),
    recorded("srt07_streamid_freeform_utf8"),
    recorded("srt10_rej_badsecret"),
    recorded("srt11_rej_unsecure_caller_nopass"),
    recorded("srt12_rej_unsecure_listener_nopass"),
    recorded("srt13_rej_minversion"),
    recorded("srt14_rej_congestion"),
    row("srt15_rej_messageapi", Course::Served, Course::Recorded),
    row("srt16_rej_filter", FILTERED, Course::Recorded),
    recorded("srt17_rej_acl_forbidden1403"),
    recorded("srt18_rej_acl_user2005"),
    recorded("srt19_rej_acl_default"),
    recorded("srt20_rej_acl_badpass"),
    recorded("srt21_no_listener_timeout"),
    recorded("srt22_badsecret_not_enforced"),
    recorded("srt23_listener_pass_only_not_enforced"),
    recorded("srt24_caller_pass_only_not_enforced"),
    recorded("srt30_loss_nak_rexmit_rcvleg"),
    recorded("srt30_loss_nak_rexmit_sndleg"),
    recorded("srt31_loss_tlpktdrop_rcvleg"),
    recorded("srt31_loss_tlpktdrop_sndleg"),
    recorded("srt32_reorder_dup_lossmaxttl_rcvleg"),
    recorded("srt32_reorder_dup_lossmaxttl_sndleg"),
    recorded("srt33_nak_lost_periodic_nak_rcvleg"),
    recorded("srt33_nak_lost_periodic_nak_sndleg"),
    recorded("srt34_rtt50ms_loss_rcvleg"),
    recorded("srt34_rtt50ms_loss_sndleg"),
    recorded("srt35_handshake_response_lost_rcvleg"),
    recorded("srt35_handshake_response_lost_sndleg"),
    recorded("srt36_periodic_nak_20ms_rcvleg"),
    recorded("srt36_periodic_nak_20ms_sndleg"),
    row("srt40_fec_row10_noloss", FILTERED, Course::Recorded),
    row("srt41_fec_10x5_staircase_loss_arq_onreq_rcvleg", FILTERED, Course::Recorded),
    row("srt41_fec_10x5_staircase_loss_arq_onreq_sndleg", FILTERED, Course::Recorded),
    row("srt42_fec_5x5_even_loss_arq_never_rcvleg", FILTERED, Course::Recorded),
    row("srt42_fec_5x5_even_loss_arq_never_sndleg", FILTERED, Course::Recorded),
    row("srt43_fec_8x-4_colonly_arq_always_rcvleg", FILTERED, Course::Recorded),
    row("srt43_fec_8x-4_colonly_arq_always_sndleg", FILTERED, Course::Recorded),
    row("srt44_fec_encrypted_aes128_rcvleg", FILTERED, Course::Recorded),
    row("srt44_fec_encrypted_aes128_sndleg", FILTERED, Course::Recorded),
    recorded("srt45_keyrefresh_aes128"),
    recorded("srt46_keepalive_idle3s"),
    recorded("srt47_peer_vanish_timeout5s"),
    row("srt50_rendezvous_clear", RENDEZVOUS, RENDEZVOUS),
    row("srt51_rendezvous_aes128", RENDEZVOUS, RENDEZVOUS),
    row("srt52_rendezvous_badsecret", RENDEZVOUS, RENDEZVOUS),
    row("srt53_message_mode_multi_packet", FILE_MODE, Course::Ends(CloseReason::Rejected(RejectionCode::CONGESTION))),
    row("srt54_stream_buffer_mode_file", FILE_MODE, Course::Ends(CloseReason::Rejected(RejectionCode::CONGESTION))),
    recorded("srt55_lightack_burst"),
    recorded("srt56_latency_negotiation"),
    recorded("srt57_small_mss_payload"),
    recorded("srt58_tlpktdrop_off_nakreport_off"),
    recorded("srt59_fastrexmit_no_nakreport_rcvleg"),
    recorded("srt59_fastrexmit_no_nakreport_sndleg"),
    recorded("srt60_gcm_aes128"),
    recorded("srt61_gcm_aes256"),
    recorded("srt62_rej_cryptomode1017"),
    recorded("srt63_v155_ctr_aes256"),
    recorded("srt64_interop_call151_listen155"),
    recorded("srt65_gcm_keyrefresh"),
    recorded("srt66_gcm_loss_rexmit_rcvleg"),
    recorded("srt66_gcm_loss_rexmit_sndleg"),
    row("srt67_gcm_fec_rcvleg", FILTERED, Course::Recorded),
    row("srt67_gcm_fec_sndleg", FILTERED, Course::Recorded),
    recorded("srt68_gcm_pre154_libsrt153"),
    recorded("srt69_gcm_155_caller_153_listener"),
    row("srt70_group_broadcast", GROUPED, Course::Recorded),
    row("srt71_group_backup_w1_10_w2_5", GROUPED, Course::Recorded),
    row("srt72_group_broadcast_aes", GROUPED, Course::Recorded),
    row("srt73_rej_group1015", GROUPED, Course::Recorded),
    row("srt74_backup_failover_rcvleg", GROUPED, Course::Recorded),
    row("srt74_backup_failover_sndleg", GROUPED, Course::Recorded),
    row("srt75_broadcast_each_link_lossy_rcvleg", GROUPED, Course::Recorded),
    row("srt75_broadcast_each_link_lossy_sndleg", GROUPED, Course::Recorded),
    row("srt80_hsv4_caller123_listener151", VERSION_4, Course::Ends(CloseReason::ConnectTimeout)),
    row("srt81_hsv4_caller123_aes128", VERSION_4, Course::Ends(CloseReason::ConnectTimeout)),
    row("srt82_hsv5_caller151_listener123_hsv4", VERSION_4, Course::Ends(CloseReason::Rejected(RejectionCode::VERSION))),
    // The SHUTDOWN that answers here has destination 0: it is nobody's.
    row("srt83_hsv4_caller_rejected_minversion", VERSION_4, Course::Ends(CloseReason::ConnectTimeout)),
    recorded("srt90_ffmpeg_to_slt"),
    recorded("srt91_gst_srtsink_to_ffmpeg"),
    recorded("srt92_slt_udp_to_srt_streamid"),
    recorded("srt93_gst_srtsrc_caller_pulls"),
];

/// A fact in which we rightly differ from the recorded end.
#[derive(Debug)]
pub(crate) struct Difference {
    pub(crate) capture: &'static str,
    /// Which session of the capture.
    pub(crate) session: usize,
    pub(crate) role: Role,
    pub(crate) fact: &'static str,
    /// What it is with us.
    pub(crate) ours: &'static str,
    #[allow(dead_code)]
    pub(crate) why: &'static str,
}

/// All of them.
#[rustfmt::skip]
pub(crate) const DIFFERENCES: &[Difference] = &[
    Difference {
        capture: "srt02_clear_listener_sends", session: 0, role: Role::Caller,
        fact: "reported lost, by the recorded end", ours: "[]",
        why: "the first packet follows the response closely: the recorded caller was not ready for it, ours is",
    },
    live("srt14_rej_congestion", "conclusion: extension field", "1"),
    live("srt14_rej_congestion", "conclusion: congestion", "None"),
    Difference {
        capture: "srt05_aes192_listener_sends", session: 0, role: Role::Caller,
        fact: "reported lost, by the recorded end", ours: "[]",
        why: "as in srt02",
    },
    Difference {
        capture: "srt32_reorder_dup_lossmaxttl_rcvleg", session: 0, role: Role::Listener,
        fact: "reported lost", ours: "[40, 60]",
        why: "8, 25 and 41 were overtaken by fewer packets than are tolerated",
    },
    Difference {
        capture: "srt32_reorder_dup_lossmaxttl_rcvleg", session: 0, role: Role::Listener,
        fact: "reported lost, by the recorded end", ours: "[40, 60]",
        why: "both never come; the repeated report names them after 40 ms, the recorded one's timer first takes 300 ms",
    },
    Difference {
        capture: "srt34_rtt50ms_loss_rcvleg", session: 0, role: Role::Caller,
        fact: "retransmitted of what was asked for", ours: "[9, 21, 22, 23, 24]",
        why: "seen at the receiver a NAK comes sooner than a round trip, which a sender takes for one that crossed the packet",
    },
    Difference {
        capture: "srt45_keyrefresh_aes128", session: 0, role: Role::Caller,
        fact: "packets of each key", ours: "{1: 52, 2: 40}",
        why: "libsrt uses its second and later keys for one packet more than it is told",
    },
    Difference {
        capture: "srt65_gcm_keyrefresh", session: 0, role: Role::Caller,
        fact: "packets of each key", ours: "{1: 60, 2: 32}",
        why: "as in srt45",
    },
    Difference {
        capture: "srt69_gcm_155_caller_153_listener", session: 0, role: Role::Listener,
        fact: "request: SRT version", ours: "66819",
        why: "the replay rewrites it, so that our listener takes the form of AES-GCM that was meant for the recorded one",
    },
    always_on("srt58_tlpktdrop_off_nakreport_off", Role::Listener, "response: flags"),
    always_on("srt58_tlpktdrop_off_nakreport_off", Role::Caller, "conclusion: flags"),
    always_on("srt59_fastrexmit_no_nakreport_rcvleg", Role::Listener, "response: flags"),
    always_on("srt59_fastrexmit_no_nakreport_sndleg", Role::Listener, "response: flags"),
    Difference {
        capture: "srt59_fastrexmit_no_nakreport_rcvleg", session: 0, role: Role::Caller,
        fact: "retransmitted of what was asked for", ours: "[10, 11, 12]",
        why: "towards a peer without periodic NAKs everything unacknowledged is repeated after a while",
    },
    Difference {
        capture: "srt59_fastrexmit_no_nakreport_sndleg", session: 0, role: Role::Caller,
        fact: "retransmitted", ours: "[10, 11, 25, 26]",
        why: "the repetition after 30 ms without progress comes at its time, not at a multiple of 10 ms, and the next one waits twice as long, by when the ACK is there",
    },
    Difference {
        capture: "srt35_handshake_response_lost_rcvleg", session: 0, role: Role::Caller,
        fact: "keepalives", ours: "1",
        why: "the response that was lost behind this capture reaches ours, which is then idle for a second",
    },
    Difference {
        capture: "srt74_backup_failover_rcvleg", session: 0, role: Role::Caller,
        fact: "keepalives", ours: "5",
        why: "the recorded ones were lost in the dead link",
    },
    Difference {
        capture: "srt90_ffmpeg_to_slt", session: 0, role: Role::Listener,
        fact: "enough acks", ours: "false",
        why: "packets in bursts: 14 times, not 17, a timer of 10 ms found new ones",
    },
    Difference {
        capture: "srt91_gst_srtsink_to_ffmpeg", session: 0, role: Role::Listener,
        fact: "enough acks", ours: "false",
        why: "the same: 3 times, not 4",
    },
    Difference {
        capture: "srt74_backup_failover_sndleg", session: 0, role: Role::Listener,
        fact: "last acknowledged", ours: "Some(92)",
        why: "what was sent into the dead link reaches us here",
    },
    Difference {
        capture: "srt74_backup_failover_sndleg", session: 0, role: Role::Caller,
        fact: "dropped before sending", ours: "14",
        why: "what a dead link does not acknowledge is dropped when it is too late",
    },
    Difference {
        capture: "srt74_backup_failover_sndleg", session: 0, role: Role::Caller,
        fact: "in flight at the end", ours: "13",
        why: "the same",
    },
];

/// The recorded caller asked for file mode; ours asks for live mode.
const fn live(capture: &'static str, fact: &'static str, ours: &'static str) -> Difference {
    Difference {
        capture,
        session: 0,
        role: Role::Caller,
        fact,
        ours,
        why: "the recorded caller asks for file mode, ours for live mode",
    }
}

/// Too-late drop and periodic NAKs are no options of ours.
const fn always_on(capture: &'static str, role: Role, fact: &'static str) -> Difference {
    Difference {
        capture,
        session: 0,
        role,
        fact,
        ours: "Some(63)",
        why: "we always announce too-late drop and periodic NAKs",
    }
}
