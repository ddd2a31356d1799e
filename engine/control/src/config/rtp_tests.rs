//! Facts about `[rtp]` and `[[rtp.sessions]]`.

use std::time::Duration;

use mirror_stream::plan::{Interface, Purpose};

use super::tests::{file, load};

const SDP: &str = "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n\
    m=video 6000 RTP/AVPF 96\na=rtpmap:96 H264/90000\na=rtcp-fb:96 nack\n\
    m=audio 6002 RTP/AVP 97\na=rtpmap:97 opus/48000/2\n";

#[test]
fn a_session_has_its_description_in_a_file_or_in_the_text() {
    let path = file("cam.sdp", &SDP.replace('\n', "\r\n"));
    let text = format!(
        "[[rtp.sessions]]\nid = \"studio/a\"\nsdp = {path:?}\nsources = [\"127.0.0.1\", \"10.0.0.0/8\"]\n\
         jitter_buffer = \"200ms\"\n[[rtp.sessions]]\nid = \"studio/b\"\nsdp = \"\"\"\n{}\"\"\"\n\
         rtcp = false\ntags = [\"x\"]\n",
        SDP.replace("600", "610")
    );
    let config = load("described.toml", &text).unwrap();
    let [a, b] = config.rtp.sessions.as_slice() else {
        panic!()
    };
    assert_eq!(a.plan.media.len(), 2);
    assert_eq!(
        a.plan.media[1].rtp.jitter_buffer,
        Duration::from_millis(200)
    );
    assert_eq!(a.plan.sources.len(), 2);
    assert!(a.plan.media[0].rtp.feedback.nack && a.plan.media[0].rtp.rtcp.is_some());
    assert_eq!(b.plan.media[1].rtp.jitter_buffer, config.rtp.jitter_buffer);
    // What is set stays; what is not follows from the repair in use.
    let most = |at: usize| config.rtp.sessions[at].plan.media[1].rtp.max_jitter_buffer;
    assert_eq!(
        (most(0), most(1)),
        (Duration::ZERO, config.rtp.max_jitter_buffer)
    );
    assert!(b.plan.media[0].rtp.rtcp.is_none());
    assert_eq!(b.plan.tags, ["x"]);
    let again = load("described2.toml", &config.to_toml()).unwrap();
    assert_eq!(config.to_json(), again.to_json());
    assert_eq!(again.rtp.sessions[0].plan, a.plan);
}

#[test]
fn a_session_is_described_key_by_key() {
    let text = "[[rtp.sessions]]\nid = \"studio/cam1\"\nport = 6010\ngroup = \"232.1.1.1\"\n\
        source = [\"10.0.0.7\"]\ninterface = \"eth1\"\nfec = true\nfeedback = [\"nack\", \"pli\"]\n\
        bandwidth = 20000000\nrtcp_to = \"198.51.100.7:9\"\npayload_types = { 33 = \"MP2T\", 96 = \"H264/90000 packetization-mode=1\" }\n\
        rtx = { 97 = 96 }\n\
        second_leg = { port = 6010, group = \"232.1.1.2\", source = \"10.1.0.7\", interface = \"10.1.0.1\" }\n\
        [[rtp.sessions]]\nid = \"studio/av\"\n[[rtp.sessions.media]]\nport = 6100\n\
        payload_types = { 96 = \"H265\" }\nrtcp_mux = true\n[[rtp.sessions.media]]\nport = 6102\n\
        address = \"127.0.0.1\"\npayload_types = { 97 = \"L16/44100/2\" }\n";
    let config = load("keyed.toml", text).unwrap();
    let [one, two] = config.rtp.sessions.as_slice() else {
        panic!()
    };
    let media = &one.plan.media[0];
    assert_eq!(
        (
            media.rtp.legs,
            media.rtp.feedback.pli,
            media.rtp.feedback.fir
        ),
        (2, true, false)
    );
    assert_eq!(media.rtp.rtcp.as_ref().unwrap().bandwidth_bps, 20_000_000);
    assert_eq!(media.formats.len(), 2);
    let ports: Vec<_> = media
        .ports
        .iter()
        .map(|p| (p.leg, p.purpose, p.address.port()))
        .collect();
    assert_eq!(
        ports,
        [
            (0, Purpose::Rtp, 6010),
            (0, Purpose::Rtcp, 6011),
            (0, Purpose::FecColumn, 6012),
            (0, Purpose::FecRow, 6014),
            (1, Purpose::Rtp, 6010),
            (1, Purpose::Rtcp, 6011),
            (1, Purpose::FecColumn, 6012),
            (1, Purpose::FecRow, 6014),
        ]
    );
    assert_eq!(media.ports[4].interface, Interface::parse("10.1.0.1"));
    assert_eq!(media.ports[3].address.to_string(), "232.1.1.1:6014");
    let [video, audio] = two.plan.media.as_slice() else {
        panic!()
    };
    assert_eq!(video.ports.len(), 1);
    assert!(video.rtp.rtcp.as_ref().unwrap().mux);
    assert_eq!(video.ports[0].address.to_string(), "[::]:6100");
    assert_eq!(audio.ports[1].address.to_string(), "127.0.0.1:6103");
    assert_eq!(
        (
            audio.clock_rate(97),
            audio.formats[0].hint.parameters.channels
        ),
        (44_100, 2)
    );
    let again = load("keyed2.toml", &config.to_toml()).unwrap();
    assert_eq!(config.to_json(), again.to_json());
    assert_eq!(again.rtp.sessions[0].plan, one.plan);
    assert_eq!(again.rtp.sessions[1].plan, two.plan);
}

#[test]
fn every_fault_of_a_session_is_told_with_its_line() {
    let text = "[[rtp.sessions]]\nid = \"rtp_00000001\"\nport = 0\npayload_types = { 96 = \"VC1\", 200 = \"H264\" }\n\
        rtx = { 97 = 98 }\nfeedback = [\"ack\"]\ngroup = \"10.0.0.1\"\naddress = \"239.1.1.1\"\n\
        sources = [\"here\"]\nsource = \"there\"\ninterface = \"much too long a name\"\ncolour = \"red\"\n\
        [[rtp.sessions]]\nsdp = \"/nonexistent.sdp\"\n[[rtp.sessions]]\nid = \"b\"\n\
        sdp = \"v=0\\nm=video 5 RTP/SAVP 96\\nm=audio 7 RTP/AVP 0\"\n[[rtp.sessions]]\nid = \"c\"\n";
    let errors = load("faulty.toml", text).unwrap_err();
    let found: Vec<_> = errors
        .0
        .iter()
        .map(|e| (e.line().unwrap(), e.key.as_str()))
        .collect();
    for expected in [
        (2, "rtp.sessions[0].id"),
        (3, "rtp.sessions[0].port"),
        (4, "rtp.sessions[0].payload_types.96"),
        (4, "rtp.sessions[0].payload_types.200"),
        (5, "rtp.sessions[0].rtx.97"),
        (6, "rtp.sessions[0].feedback"),
        (7, "rtp.sessions[0].group"),
        (8, "rtp.sessions[0].address"),
        (9, "rtp.sessions[0].sources"),
        (10, "rtp.sessions[0].source"),
        (11, "rtp.sessions[0].interface"),
        (12, "rtp.sessions[0].colour"),
        (13, "rtp.sessions[1].id"),
        (14, "rtp.sessions[1].sdp"),
        (17, "rtp.sessions[2].sdp"),
        (18, "rtp.sessions[3].port"),
    ] {
        assert!(found.contains(&expected), "{expected:?} in {errors}");
    }
    let shown = errors.to_string();
    assert!(shown.contains("line 2 of the SDP: RTP/SAVP"), "{shown}");
    assert!(
        shown.contains("line 3 of the SDP: payload type 0"),
        "{shown}"
    );
}

#[test]
fn sessions_keep_apart_from_each_other_and_from_the_shared_ports() {
    let head = "[[rtp.sessions]]\nid = \"a\"\nport = 6000\npayload_types = { 33 = \"MP2T\" }\n";
    for (more, part) in [
        (
            "[[rtp.sessions]]\nid = \"a\"\nport = 7000\npayload_types = { 33 = \"MP2T\" }\n",
            "two sessions have the id",
        ),
        (
            "[[rtp.sessions]]\nid = \"b\"\nport = 5999\npayload_types = { 33 = \"MP2T\" }\n",
            "would share [::]:6000",
        ),
        (
            "[[rtp.sessions]]\nid = \"b\"\nport = 5003\npayload_types = { 33 = \"MP2T\" }\n",
            "that of rtp.listen",
        ),
        ("[rtp]\nenabled = false\n", "need rtp.enabled"),
        (
            "[[rtp.sessions]]\nid = \"b\"\n[[rtp.sessions.media]]\nport = 7000\npayload_types = { 33 = \"MP2T\" }\n[[rtp.sessions.media]]\nport = 7001\npayload_types = { 33 = \"MP2T\" }\n",
            "would share [::]:7001",
        ),
    ] {
        let shown = load("apart.toml", &format!("{head}{more}"))
            .unwrap_err()
            .to_string();
        assert!(shown.contains(part), "{shown}");
    }
}

#[test]
fn an_sdp_bomb_in_a_file_is_not_read_whole() {
    let path = file("bomb.sdp", &("v=0\n".to_owned() + &"a=x\n".repeat(100_000)));
    let text = format!("[[rtp.sessions]]\nid = \"a\"\nsdp = {path:?}\n");
    let shown = load("bomb.toml", &text).unwrap_err().to_string();
    assert!(shown.contains("65537 bytes, the most is 65536"), "{shown}");
}
