//! What `inspect` says is wrong, in sentences.

use mirror_inspect::{Options, Report, inspect};

use crate::check::folder;

fn report(group: &str, file: &str, passphrase: Option<&str>) -> Report {
    let bytes = std::fs::read(folder(group).join(file)).expect("readable");
    let options = Options {
        passphrase: passphrase.map(str::to_owned),
        ..Options::default()
    };
    inspect(file, &bytes, &options).expect("known")
}

#[track_caller]
fn says(report: &Report, part: &str) {
    let findings = report.findings();
    assert!(
        findings.iter().any(|f| f.contains(part)),
        "{part}: {findings:#?}"
    );
}

#[test]
fn of_what_is_well_nothing_is_said() {
    for (group, file) in [
        ("media", "ts_h264b3_opengop_aac.ts"),
        ("media", "ts_hevc_b3_aac.ts"),
        ("media", "h264_b2_closed.h264"),
        ("srt", "srt01_clear_caller_sends.pcap"),
        ("rtp", "rtp01_ffmpeg_h264_ipp.pcap"),
    ] {
        let found = report(group, file, None).findings();
        assert!(found.is_empty(), "{file}: {found:#?}");
    }
}

#[test]
fn an_encrypted_conversation_asks_for_its_passphrase_and_tells_a_wrong_one() {
    let file = "srt03_aes128.pcap";
    says(
        &report("srt", file, None),
        "40 packets are encrypted: give the passphrase",
    );
    let wrong = report("srt", file, Some("not-the-passphrase"));
    says(&wrong, "the passphrase does not open their key");
    let right = report("srt", file, Some("correct-horse-01")).findings();
    assert!(right.is_empty(), "{right:#?}");
}

#[test]
fn rejections_and_silence_are_told_apart() {
    says(
        &report("srt", "srt10_rej_badsecret.pcap", None),
        "rejected, 10",
    );
    says(
        &report("srt", "srt21_no_listener_timeout.pcap", None),
        "never answered",
    );
}

#[test]
fn loss_is_told_with_its_share_and_what_became_of_it() {
    let dropped = report("srt", "srt31_loss_tlpktdrop_rcvleg.pcap", None);
    says(&dropped, "5 packets (5.75 %) did not come");
    let lost = report("rtp", "rtp24_gst_h264_loss_reorder_dup_rcvleg.pcap", None);
    says(&lost, "4 packets");
    says(&lost, "units are damaged");
}

#[test]
fn faults_of_a_transport_stream_name_indicator_and_pid() {
    let gap = report("media", "tr290_1.4_lost_packet.ts", None);
    says(&gap, "1.4 Continuity_count_error: 1 (PID 0x100)");
    assert_eq!(
        gap.tracks[0].access_units, 39,
        "{:?}",
        gap.tracks[0].damaged
    );
    let missing = report("media", "tr290_1.6_audio_pid_missing.ts", None);
    says(
        &missing,
        "PID 0x101 (stream type 0x0f) is announced and never comes",
    );
    let cut = report("media", "tr290_2.6_scrambled_without_cat.ts", None);
    says(&cut, "2.6 CAT_error");
}
