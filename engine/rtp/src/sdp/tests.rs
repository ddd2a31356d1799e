//! Descriptions as ffmpeg and GStreamer write them, and hostile ones.

use super::*;

const FFMPEG: &str = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=No Name\r\nt=0 0\r\na=tool:libavformat\r\n\
    m=video 10000 RTP/AVP 96\r\nc=IN IP4 127.0.0.1\r\nb=AS:1000\r\na=rtpmap:96 H264/90000\r\n\
    a=fmtp:96 packetization-mode=1; sprop-parameter-sets=Z2QADA==,aO+8sA==; profile-level-id=64000C\r\n\
    m=audio 10002 RTP/AVP 97\r\nc=IN IP4 127.0.0.1\r\nb=AS:64\r\na=rtpmap:97 MPEG4-GENERIC/48000/1\r\n\
    a=fmtp:97 profile-level-id=1;mode=AAC-hbr;sizelength=13;indexlength=3;indexdeltalength=3; config=118856E500\r\n";

#[test]
fn a_description_of_ffmpeg_is_read() {
    let sdp = parse(FFMPEG).unwrap();
    assert_eq!((sdp.name.as_str(), sdp.media.len()), ("No Name", 2));
    let [video, audio] = sdp.media.as_slice() else {
        panic!()
    };
    assert_eq!(
        (video.kind.as_str(), video.port, video.line),
        ("video", 10_000, 6)
    );
    assert_eq!(video.protocol, "RTP/AVP");
    assert_eq!(video.bandwidth.session_bps, Some(1_000_000));
    let map = video.map(96).unwrap();
    assert_eq!((map.encoding.as_str(), map.clock_rate), ("H264", 90_000));
    let fmtp = video.parameters(96).unwrap();
    assert_eq!(fmtp.get("Packetization-Mode"), Some("1"));
    assert_eq!(fmtp.get("sprop-parameter-sets"), Some("Z2QADA==,aO+8sA=="));
    assert_eq!(audio.map(97).unwrap().channels, 1);
    assert_eq!(
        audio.parameters(97).unwrap().get("config"),
        Some("118856E500")
    );
}

#[test]
fn attributes_of_repair_feedback_and_multicast_are_read() {
    let text = "v=0\na=group:DUP a b\nc=IN IP4 239.1.2.3/64\nb=TIAS:2000000\n\
        a=source-filter: incl IN IP4 * 192.0.2.7\n\
        m=video 5000/1 RTP/AVPF 96 97\na=rtpmap:96 H265/90000\na=rtpmap:97 rtx/90000\n\
        a=fmtp:97 apt=96;rtx-time=3000\na=rtcp:5009 IN IP4 192.0.2.9\na=rtcp-rsize\n\
        a=rtcp-fb:96 nack\na=rtcp-fb:* nack  PLI\na=ssrc:4294967295 cname:x\na=ssrc:4294967295 msid:y\n\
        a=ssrc-group:FID 4294967295 7\na=mid:a\n\
        m=video 5000 RTP/AVPF 96\nc=IN IP6 ff15::1\na=source-filter:incl IN IP6 ff15::1 2001:db8::1\n\
        a=mid:b\na=rtcp-mux\nb=AS:3\nb=TIAS:5000\nb=RR:0\na=duplication-delay:50\na=inactive\n";
    let sdp = parse(text).unwrap();
    assert_eq!(sdp.groups[0].members, ["a", "b"]);
    let [a, b] = sdp.media.as_slice() else {
        panic!()
    };
    assert_eq!(a.connections[0].ttl, Some(64));
    assert_eq!(a.bandwidth.session_bps, Some(2_000_000));
    assert_eq!(a.rtcp, Some((5009, Some("192.0.2.9".parse().unwrap()))));
    assert!(a.rtcp_reduced_size && !a.rtcp_mux);
    assert_eq!(a.feedback[1].what, "nack pli");
    assert_eq!(
        (a.ssrcs.as_slice(), a.ssrc_groups[0].members.as_slice()),
        (&[u32::MAX][..], &[u32::MAX, 7][..])
    );
    assert_eq!(
        a.filters[0].sources,
        ["192.0.2.7".parse::<IpAddr>().unwrap()]
    );
    assert_eq!(b.filters[0].destination, Some("ff15::1".parse().unwrap()));
    assert_eq!(b.bandwidth.session_bps, Some(5_000));
    assert_eq!(b.bandwidth.rtcp_receivers_bps, Some(0));
    assert_eq!(b.duplication_delay, Duration::from_millis(50));
    assert!(b.rtcp_mux && b.direction == Direction::Inactive);
}

#[test]
fn every_fault_is_told_with_its_line() {
    let text = "v=0\nnonsense\nc=IN IP4 example.com\nm=video x RTP/AVP 96\nm=audio 5004 RTP/AVP 128\n\
        m=audio 5004 RTP/AVP 97\na=rtpmap:97 L16\na=rtcp:0\na=source-filter: excl IN IP4 * 1.2.3.4\n\
        c=IN IP4 239.1.1.1/300\na=fmtp:x\n";
    let lines: Vec<usize> = parse(text).unwrap_err().iter().map(|e| e.line).collect();
    assert_eq!(lines, [2, 3, 4, 5, 7, 8, 9, 10, 11]);
    assert_eq!(parse("").unwrap_err()[0].line, 0);
    assert!(
        parse("m=video 1 RTP/AVP 33\n").unwrap_err()[0]
            .message
            .contains("v=0")
    );
}

#[test]
fn an_sdp_bomb_is_refused_in_bounded_time_and_memory() {
    let long = format!("v=0\ns={}\n", "x".repeat(MAX_BYTES));
    assert!(parse(&long).unwrap_err()[0].message.contains("bytes"));
    let lines = "v=0\n".to_owned() + &"a=x\n".repeat(MAX_LINES);
    assert!(parse(&lines).unwrap_err()[0].message.contains("lines"));
    let media = "v=0\n".to_owned() + &"m=video 1 RTP/AVP 33\n".repeat(MAX_MEDIA + 1);
    assert!(parse(&media).unwrap_err()[0].message.contains("m= lines"));
    for (line, count) in [
        ("a=rtcp-fb:* nack\n", MAX_ENTRIES),
        ("a=ssrc-group:FID 1 2\n", MAX_ENTRIES),
        ("c=IN IP4 1.2.3.4\n", MAX_ENTRIES),
        ("a=source-filter:incl IN IP4 * 1.2.3.4\n", MAX_ENTRIES),
    ] {
        let text = "v=0\nm=video 1 RTP/AVP 33\n".to_owned() + &line.repeat(count + 1);
        assert_eq!(parse(&text).unwrap_err()[0].line, count + 3, "{line}");
    }
    let groups = "v=0\n".to_owned() + &"a=group:DUP a b\n".repeat(MAX_ENTRIES + 1);
    assert!(parse(&groups).is_err());
    let types: String = (0..128).map(|n| format!(" {n}")).collect();
    assert!(parse(&format!("v=0\nm=video 1 RTP/AVP{types}\n")).is_err());
    let sources = " 1.2.3.4".repeat(MAX_ENTRIES + 1);
    assert!(
        parse(&format!(
            "v=0\na=source-filter:incl IN IP4 *{sources}\nm=video 1 RTP/AVP 33\n"
        ))
        .is_err()
    );
    let errors = "v=0\n".to_owned() + &"nonsense\n".repeat(1_000);
    assert_eq!(parse(&errors).unwrap_err().len(), 32);
    let ssrcs: String = (0..100).map(|n| format!("a=ssrc:{n} cname:x\n")).collect();
    assert!(parse(&format!("v=0\nm=video 1 RTP/AVP 33\n{ssrcs}")).is_err());
}

#[test]
fn no_cut_of_a_description_panics() {
    for text in [
        FFMPEG,
        "v=0\nm=é/é 5/é RTP/é é\na=rtpmap:é é/é/é\nc=IN IP4 é/é/é/é",
    ] {
        for (at, _) in text.char_indices() {
            let _ = parse(&text[..at]);
            let _ = parse(&format!("v=0\n{}", &text[at..]));
        }
    }
}
