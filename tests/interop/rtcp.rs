//! RTCP between the engine and rtpbin or ffmpeg, both ways: SR, RR, SDES and BYE; and audio on one
//! port put beside video on another by what sender reports say of both clocks.

use std::process::Command;

use mirror_tests::engine::{Engine, encode, number};
use mirror_tests::media;
use mirror_tests::process::Process;
use mirror_tests::relay::{Passed, Relay, free_ports};
use mirror_tests::{Alone, seconds, wait_for};
use rustix::process::Signal;
use serde_json::Value;

/// Nothing but a BYE may end a session in these tests.
const PATIENT: [&str; 2] = ["rtp.session_timeout=60s", "stream.reconnect_grace=1s"];

fn description(video: u16, audio: u16) -> String {
    format!(
        "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=both\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
         m=video {video} RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n\
         m=audio {audio} RTP/AVP 97\r\na=rtpmap:97 opus/48000/2\r\n"
    )
}

/// What a sender with sockets of its own for RTCP needs: a relay to the engine's port, whose way
/// back ends at the ear.
struct Wire {
    rtcp: Relay,
    ear: u16,
    port: u16,
}

impl Wire {
    fn to(port: u16, ear: u16) -> Self {
        Wire {
            rtcp: Relay::start(port + 1, Some(ear), |_, _| true),
            ear,
            port,
        }
    }

    /// rtpbin's pads of session `n`.
    fn pads(&self, n: usize, chain: &str) -> String {
        format!(
            " {chain} ! r.send_rtp_sink_{n} \
             r.send_rtp_src_{n} ! udpsink host=127.0.0.1 port={} \
             r.send_rtcp_src_{n} ! udpsink host=127.0.0.1 port={} sync=false async=false \
             udpsrc address=127.0.0.1 port={} caps=application/x-rtcp ! r.recv_rtcp_sink_{n}",
            self.port,
            self.rtcp.port(),
            self.ear
        )
    }
}

/// rtpbin with video and audio, writing down what it hears.
fn sender(test: &Alone, video: &Wire, audio: &Wire) -> Process {
    let pipeline = format!(
        "-q -e rtpbin name=r {}{}",
        video.pads(
            0,
            "videotestsrc is-live=true pattern=ball \
             ! video/x-raw,format=I420,width=320,height=180,framerate=25/1 \
             ! x264enc speed-preset=ultrafast tune=zerolatency key-int-max=25 \
             ! rtph264pay pt=96 config-interval=-1",
        ),
        audio.pads(
            1,
            "audiotestsrc is-live=true samplesperbuffer=960 ! audioconvert \
             ! audio/x-raw,rate=48000,channels=2 ! opusenc ! rtpopuspay pt=97",
        )
    );
    let mut command = Command::new("gst-launch-1.0");
    command
        .args(pipeline.split_whitespace())
        .env("GST_DEBUG", "rtpsource:5,rtpsession:5")
        .env("GST_DEBUG_NO_COLOR", "1");
    Process::start_command(test.folder(), "rtpbin", command)
}

fn sync(engine: &Engine, id: &str) -> Value {
    engine.get(&format!("/api/v1/streams/{}/sync", encode(id)))
}

#[test]
fn rtpbin_and_the_engine_hear_each_others_reports_and_a_bye_ends_the_stream() {
    let test = Alone::begin("rtcp-rtpbin");
    let ports = free_ports(2, 1);
    let ears = free_ports(2, 0);
    let sdp = test.write("both.sdp", &description(ports[0], ports[1]));
    let config = format!("[[rtp.sessions]]\nid = \"both\"\nsdp = {sdp:?}\n");
    let config = test.write("engine.toml", &config).display().to_string();
    let engine = Engine::start_with(&test, &PATIENT, &["--config", &config]);
    let (video, audio) = (Wire::to(ports[0], ears[0]), Wire::to(ports[1], ears[1]));
    let rtpbin = sender(&test, &video, &audio);

    wait_for("reports of both media, both ways", seconds(25), || {
        let stats = engine.stats("both");
        (0..2).all(|at| {
            let medium = &stats["rtp"]["media"][at];
            medium["clock"].is_object()
                && medium["rtcp"]["sr"].as_u64() >= Some(2)
                && medium["rtcp"]["sdes"].as_u64() >= Some(1)
                && medium["rtcp"]["sent"].as_u64() >= Some(2)
        })
    });
    assert!(Passed::get(&video.rtcp.passed().reports) > 0);
    assert!(Passed::get(&audio.rtcp.passed().reports) > 0);
    // One CNAME: rtpbin's media are of one clock.
    let stats = engine.stats("both");
    let media = &stats["rtp"]["media"];
    assert_eq!(media[0]["cname"], media[1]["cname"], "{stats:#}");
    for at in 0..2 {
        assert_eq!(media[at]["packets_lost"], 0, "{stats:#}");
    }
    wait_for("audio and video on one clock", seconds(10), || {
        let sync = sync(&engine, "both");
        sync["status"] == "synced" && number(&sync["drift"], "sample_count") > 3.0
    });
    // RTP timestamps begin at random: only the reports bring the newest of both together.
    let shown = sync(&engine, "both");
    let newest = |kind: &str| {
        let track = &shown[kind];
        number(track, "last_pts") + number(track, "clock_offset")
    };
    let apart = (newest("video") - newest("audio")) / 90.0;
    assert!(apart.abs() < 500.0, "{apart} ms apart: {shown:#}");
    assert!(number(&shown["drift"], "current").abs() < 40.0, "{shown:#}");

    // What rtpbin says of us: a report block of each of its sources, and our name.
    let heard = rtpbin.output();
    let blocks = heard.matches("got RB packet").count();
    assert!(blocks >= 2, "{blocks} report blocks\n{}", rtpbin.tail());
    assert!(heard.contains("got RB packet: SSRC"), "{}", rtpbin.tail());
    let lossless = heard
        .lines()
        .filter(|l| l.contains("got RB packet"))
        .all(|l| l.contains("FL 0, PL 0") || l.contains("FL  0, PL 0"));
    assert!(lossless, "{heard}");

    // The end of the stream makes rtpbin say BYE.
    rtpbin.signal(Signal::INT);
    engine.wait_status("both", "pending", seconds(8));
    wait_for("a BYE of each", seconds(5), || {
        let stats = engine.stats("both");
        (0..2).all(|at| stats["rtp"]["media"][at]["rtcp"]["bye"] == 1)
    });
    // How long its own pipeline takes to come down is not ours to judge.
    drop(rtpbin);
}

#[test]
fn a_bye_of_ffmpeg_ends_a_session_and_a_source_of_the_shared_port() {
    let test = Alone::begin("rtcp-bye");
    let port = free_ports(1, 1)[0];
    let config = format!(
        "[[rtp.sessions]]\nid = \"one\"\nport = {port}\npayload_types = {{ 96 = \"H264\" }}\n"
    );
    let config = test.write("engine.toml", &config).display().to_string();
    let engine = Engine::start_with(&test, &PATIENT, &["--config", &config]);
    let clip = media::clip_h264(&test).display().to_string();
    let send = |name: &str, url: &str, ssrc: &str| {
        let args = [
            "-re",
            "-i",
            &clip,
            "-c",
            "copy",
            "-f",
            "rtp",
            "-rtpflags",
            "send_bye",
            "-payload_type",
            "96",
            "-ssrc",
            ssrc,
            url,
        ];
        media::ffmpeg(&test, name, &args)
    };
    let url = format!("rtp://127.0.0.1:{port}");
    let mut senders = [
        send("session", &url, "1"),
        send("shared", &engine.rtp_url(), "1342177281"),
    ];
    let shared = "rtp_50000001";
    engine.wait_status("one", "active", seconds(10));
    engine.wait_status(shared, "active", seconds(10));
    for sender in &mut senders {
        assert!(sender.wait(seconds(15)).success());
    }
    engine.wait_status("one", "pending", seconds(5));
    wait_for("the source of the shared port is gone", seconds(5), || {
        engine
            .stream(shared)
            .is_none_or(|s| s["status"] != "active")
    });
}
