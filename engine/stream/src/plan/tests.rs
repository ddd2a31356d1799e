//! Descriptions and what a receiver makes of them.

use super::*;

fn plan(text: &str) -> Result<SessionPlan, Vec<SdpError>> {
    from_sdp(text, &PlanDefaults::default()).map(|media| SessionPlan {
        stream_id: StreamId::new("s").unwrap(),
        tags: Vec::new(),
        sources: Vec::new(),
        media,
    })
}

fn good(text: &str) -> SessionPlan {
    let plan = plan(text).unwrap();
    assert_eq!(plan.faults(), Vec::<String>::new());
    plan
}

#[track_caller]
fn refused(text: &str, line: usize, part: &str) {
    let errors = plan(text).unwrap_err();
    let found = errors
        .iter()
        .any(|e| e.line == line && e.message.contains(part));
    assert!(found, "{errors:?}");
}

fn ports(media: &MediaPlan) -> Vec<(u8, Purpose, String)> {
    let all = media.ports.iter();
    all.map(|p| (p.leg, p.purpose, p.address.to_string()))
        .collect()
}

#[test]
fn audio_and_video_of_ffmpeg_are_two_media() {
    let plan = good(
        "v=0\nc=IN IP4 127.0.0.1\nm=video 10000 RTP/AVP 96\na=rtpmap:96 H264/90000\n\
         a=fmtp:96 packetization-mode=1; sprop-parameter-sets=Z2QADKzZQsTsBEAAAAMAQAAADIPFCmWA,aO+8sA==\n\
         m=audio 10002 RTP/AVP 97\na=rtpmap:97 MPEG4-GENERIC/48000/2\n\
         a=fmtp:97 mode=AAC-hbr;sizelength=13;indexlength=3;indexdeltalength=3;config=1190\n",
    );
    let [video, audio] = plan.media.as_slice() else {
        panic!()
    };
    assert_eq!(
        ports(video),
        [
            (0, Purpose::Rtp, "127.0.0.1:10000".to_owned()),
            (0, Purpose::Rtcp, "127.0.0.1:10001".to_owned())
        ]
    );
    assert_eq!(video.formats[0].hint.parameters.parameter_sets.len(), 2);
    let format = &audio.formats[0];
    assert_eq!(
        (format.clock_rate, format.hint.parameters.channels),
        (48_000, 2)
    );
    assert_eq!(format.hint.parameters.config, [0x11, 0x90]);
    let Format::Rtp {
        clock_rate, ssrc, ..
    } = audio.format(7)
    else {
        panic!()
    };
    assert_eq!((clock_rate, ssrc), (48_000, 7));
}

#[test]
fn every_payload_format_that_is_taken_has_a_plan() {
    for (map, fmtp) in [
        ("H264/90000", ""),
        ("H265/90000", ""),
        ("AV1/90000", ""),
        ("jxsv/90000", "packetmode=0"),
        ("MP2T/90000", ""),
        ("mpeg4-generic/48000/2", "mode=AAC-hbr;config=1190"),
        ("MP4A-LATM/90000", "cpresent=0;config=400023103fc0"),
        ("opus/48000/2", ""),
        ("ac3/48000/2", ""),
        ("EAC3/48000", ""),
        ("L16/48000/2", ""),
        ("L24/48000/8", ""),
        ("MPA/90000", ""),
        ("smpte336m/90000", ""),
        ("VP8/90000", ""),
        ("VP9/90000", ""),
        ("MPV/90000", ""),
        ("smpte291/90000", "DID_SDID={0x61,0x02}"),
    ] {
        let text = format!(
            "v=0\nc=IN IP6 ::1\nm=video 5000 RTP/AVP 96\na=rtpmap:96 {map}\na=fmtp:96 {fmtp}\n"
        );
        assert_eq!(good(&text).media[0].formats.len(), 1, "{map}");
    }
    // Static payload types need no map.
    let plan = good("v=0\nc=IN IP4 127.0.0.1\nm=video 5000 RTP/AVP 33 14 10\n");
    let numbers: Vec<u8> = plan.media[0].formats.iter().map(|f| f.number).collect();
    assert_eq!(numbers, [33, 14, 10]);
}

#[test]
fn retransmission_and_feedback_are_what_the_sender_takes() {
    let plan = good(
        "v=0\nc=IN IP4 192.0.2.5\nm=video 5000 RTP/AVPF 96 97\nb=AS:4000\nb=RR:3000\nb=RS:1000\n\
         a=rtpmap:96 H264/90000\na=rtpmap:97 rtx/90000\na=fmtp:97 apt=96;rtx-time=3000\n\
         a=rtcp-fb:96 nack\na=rtcp-fb:* nack pli\na=rtcp-fb:97 ccm fir\na=rtcp-fb:96 trr-int 100\n\
         a=rtcp-rsize\na=ssrc-group:FID 11 22\na=rtcp:5008\n",
    );
    let media = &plan.media[0];
    let feedback = media.rtp.feedback;
    assert!(feedback.nack && feedback.pli && !feedback.fir && feedback.reduced_size);
    assert_eq!(feedback.trr_int, Duration::from_millis(100));
    assert_eq!((media.rtp.rtx[0].number, media.rtp.rtx[0].apt), (97, 96));
    assert_eq!(media.rtp.rtx_ssrcs, [(11, 22)]);
    let rtcp = media.rtp.rtcp.as_ref().unwrap();
    assert_eq!(
        (rtcp.bandwidth_bps, rtcp.shares_bps),
        (4_000_000, Some((1_000, 3_000)))
    );
    // 192.0.2.5 need not be ours.
    assert_eq!(
        ports(media)[1],
        (0, Purpose::Rtcp, "0.0.0.0:5008".to_owned())
    );
}

#[test]
fn retransmissions_in_a_line_of_their_own_belong_to_their_media() {
    let plan = good(
        "v=0\nc=IN IP4 127.0.0.1\na=group:FID a r\nm=video 5000 RTP/AVPF 96\na=mid:a\n\
         a=rtpmap:96 H264/90000\na=rtcp-fb:96 nack\nm=audio 5004 RTP/AVP 33\na=mid:b\n\
         m=video 5002 RTP/AVPF 99\na=mid:r\na=rtpmap:99 rtx/90000\na=fmtp:99 apt=96\n",
    );
    assert_eq!(plan.media.len(), 2);
    assert_eq!(
        ports(&plan.media[0])[2],
        (0, Purpose::Rtx, "127.0.0.1:5002".to_owned())
    );
    assert_eq!(plan.media[0].rtp.rtx[0].apt, 96);
    assert!(plan.media[1].rtp.rtx.is_empty());
}

#[test]
fn fec_lines_give_their_media_columns_and_rows() {
    let plan = good(
        "v=0\nc=IN IP4 239.1.1.1/16\na=group:FEC-FR S C R\nm=video 5000 RTP/AVP 33\na=mid:S\n\
         m=application 5002 RTP/AVP 110\na=mid:C\na=rtpmap:110 1d-interleaved-parityfec/90000\n\
         a=fmtp:110 L=5; D=10; repair-window=200000\n\
         m=application 5004 RTP/AVP 111\na=mid:R\na=rtpmap:111 1d-interleaved-parityfec/90000\n\
         a=fmtp:111 L=5; D=10; repair-window=200000\n",
    );
    let media = &plan.media[0];
    let limits = media.rtp.fec.unwrap();
    assert_eq!((limits.columns, limits.rows), (5, 10));
    assert_eq!(
        ports(media)[2],
        (0, Purpose::FecColumn, "239.1.1.1:5002".to_owned())
    );
    assert_eq!(
        ports(media)[3],
        (0, Purpose::FecRow, "239.1.1.1:5004".to_owned())
    );
    assert!(
        media
            .ports
            .iter()
            .all(|p| p.ttl == Some(16) && p.is_multicast())
    );
    assert!(media.rtp.rtcp.as_ref().unwrap().multicast);
}

#[test]
fn two_paths_become_one_medium_with_source_filters() {
    let text = "v=0\nm=video 5000 RTP/AVP 33\nc=IN IP4 232.1.1.1/32\na=mid:1\n\
        a=source-filter: incl IN IP4 232.1.1.1 10.0.0.1\n\
        m=video 5000 RTP/AVP 33\nc=IN IP4 232.1.1.2/32\na=mid:2\n\
        a=source-filter: incl IN IP4 * 10.1.0.1 10.1.0.2\na=duplication-delay:100\n";
    let defaults = PlanDefaults {
        interfaces: [Interface::parse("eth1"), Interface::parse("10.1.0.9")],
        ..PlanDefaults::default()
    };
    let dup = text.replace("v=0\n", "v=0\na=group:DUP 1 2\n");
    let media = from_sdp(&dup, &defaults).unwrap();
    let [media] = media.as_slice() else { panic!() };
    assert_eq!((media.rtp.legs, media.ports.len()), (2, 4));
    assert_eq!(media.rtp.jitter_buffer, Duration::from_millis(150));
    let second = &media.ports[2];
    assert_eq!((second.leg, second.sources.len()), (1, 2));
    assert_eq!(second.interface, Interface::parse("10.1.0.9"));
    // Without the group they are two media.
    assert_eq!(from_sdp(text, &defaults).unwrap().len(), 2);
}

#[test]
fn what_cannot_be_received_is_refused_where_it_stands() {
    let head = "v=0\nc=IN IP4 127.0.0.1\n";
    for (lines, line, part) in [
        ("m=video 5000 RTP/SAVP 96\n", 3, "SRTP"),
        ("m=video 5000 udp 33\n", 3, "RTP/AVP"),
        ("m=video 5000/2 RTP/AVP 33\n", 3, "layers"),
        ("m=audio 5000 RTP/AVP 0\n", 3, "payload type 0"),
        ("m=audio 5000 RTP/AVP 96\n", 3, "no a=rtpmap"),
        (
            "m=audio 5000 RTP/AVP 96\na=rtpmap:96 G722/8000\n",
            3,
            "G722/8000",
        ),
        (
            "m=video 5000 RTP/AVP 96\na=rtpmap:96 H264/90000\na=fmtp:96 packetization-mode=9\n",
            5,
            "packetization-mode",
        ),
        (
            "m=video 5000 RTP/AVP 33 97\na=rtpmap:97 rtx/90000\n",
            3,
            "apt",
        ),
        (
            "m=video 5000 RTP/AVP 33 97\na=rtpmap:97 rtx/90000\na=fmtp:97 apt=98\n",
            3,
            "98",
        ),
        (
            "m=video 5000 RTP/AVP 33\nc=IN IP4 239.1.1.1/16/2\n",
            3,
            "layers",
        ),
        ("m=video 65535 RTP/AVP 33\n", 3, "RTCP"),
        (
            "m=video 5000 RTP/AVP 33\na=ssrc-group:DUP 1 2 3\n",
            4,
            "two SSRCs",
        ),
        ("m=video 0 RTP/AVP 33\n", 0, "no media"),
        ("m=video 5000 RTP/AVP 33\na=inactive\n", 0, "no media"),
    ] {
        refused(&format!("{head}{lines}"), line, part);
    }
    refused("v=0\nm=video 5000 RTP/AVP 33\n", 2, "no c=");
    refused(
        "v=0\nc=IN IP4 127.0.0.1\na=group:DUP x y\nm=video 5000 RTP/AVP 33\n",
        3,
        "DUP",
    );
    let all = plan("v=0\nm=video 5000 RTP/SAVP 96\nm=audio 6 RTP/AVP 96\n").unwrap_err();
    assert_eq!(all.iter().map(|e| e.line).collect::<Vec<_>>(), [2, 3]);
}

#[test]
fn ports_that_meet_are_told() {
    let same = plan("v=0\nc=IN IP4 127.0.0.1\nm=video 5000 RTP/AVP 33\nm=video 5001 RTP/AVP 33\n");
    assert!(same.unwrap().faults()[0].contains("127.0.0.1:5001"));
    let one = good("v=0\nc=IN IP4 192.0.2.1\nm=video 5000 RTP/AVP 33\n");
    let other = good("v=0\nc=IN IP4 127.0.0.1\nm=video 4999 RTP/AVP 33\n");
    assert_eq!(one.meets(&other).unwrap().port(), 5000);
    let group = |source: &str| {
        good(&format!(
            "v=0\nc=IN IP4 232.0.0.1/8\na=source-filter:incl IN IP4 * {source}\nm=video 5000 RTP/AVP 33\n"
        ))
    };
    assert!(group("10.0.0.1").meets(&group("10.0.0.2")).is_none());
    assert!(group("10.0.0.1").meets(&group("10.0.0.1")).is_some());
    assert!(group("10.0.0.1").meets(&one).is_some());
}

#[test]
fn an_sdp_bomb_makes_no_more_plans_than_lanes_and_ports() {
    let mut text = "v=0\nc=IN IP4 127.0.0.1\na=group:DUP".to_owned();
    text += &" a".repeat(1_000);
    for n in 0..32 {
        text += &format!("\nm=video {} RTP/AVP 33\na=mid:a", 5000 + 2 * n);
    }
    assert!(plan(&text).is_err());
    let text = text.replace("a=group:DUP", "a=group:LS");
    let faults = plan(&text).unwrap().faults();
    assert!(
        faults[0].contains("media") && faults[1].contains("ports"),
        "{faults:?}"
    );
}

#[test]
fn duplicates_and_fec_on_the_media_port_are_told_by_ssrc_and_payload_type() {
    let plan = good(
        "v=0\nc=IN IP4 127.0.0.1\nm=video 5000 RTP/AVP 33 110\na=ssrc-group:DUP 7 8\n\
         a=rtpmap:110 1d-interleaved-parityfec/90000\na=fmtp:110 L=4;D=6\n",
    );
    let rtp = &plan.media[0].rtp;
    assert_eq!(
        (rtp.legs, rtp.duplicate_ssrcs.as_slice()),
        (2, &[(7, 8)][..])
    );
    assert_eq!(rtp.fec_payload_types, [110]);
    assert_eq!(rtp.fec.map(|f| (f.columns, f.rows)), Some((4, 6)));
    assert_eq!(plan.media[0].ports.len(), 2);
}
