//! Configured RTP sessions with the senders of the field: audio and video by SDP, NACK and RTX,
//! SMPTE ST 2022-1, a multicast group with a source filter, and sessions made at run time.

use std::net::UdpSocket;
use std::path::PathBuf;

use mirror_tests::engine::{Engine, encode, number};
use mirror_tests::media::{self, QUIET};
use mirror_tests::process::{Process, run};
use mirror_tests::{Alone, seconds, wait_for};
use serde_json::{Value, json};

/// The first of ten UDP ports in a row that are free, an even one.
fn ports() -> u16 {
    let free = |port: u16| UdpSocket::bind(("127.0.0.1", port)).is_ok();
    (0..200)
        .find_map(|_| {
            let any = UdpSocket::bind("127.0.0.1:0").ok()?;
            let port = any.local_addr().ok()?.port() & !1;
            drop(any);
            (port < 65_000 && (port..port + 10).all(free)).then_some(port)
        })
        .expect("ten UDP ports in a row are free")
}

fn engine(test: &Alone, sessions: &str) -> Engine {
    let config = test.write("sessions.toml", sessions);
    let config = config.display().to_string();
    let settings = ["stream.reconnect_grace=1s", "rtp.session_timeout=2s"];
    Engine::start_with(test, &settings, &["--config", &config])
}

/// The figures of the stream's medium `at`.
fn medium(engine: &Engine, id: &str, at: usize) -> Value {
    engine.stats(id)["rtp"]["media"][at].clone()
}

fn whole(value: &Value) -> u64 {
    value
        .as_u64()
        .unwrap_or_else(|| panic!("{value} is no count"))
}

/// ffmpeg's arguments for audio and video to two ports.
fn audio_and_video(port: u16, seconds: &str, sdp: Option<&str>) -> Vec<String> {
    let words = format!(
        "-t {seconds} -re -f lavfi -i testsrc2=size=640x360:rate=25 -t {seconds} -re -f lavfi -i \
         sine=frequency=440:sample_rate=48000 -map 0:v -c:v libx264 -preset ultrafast \
         -g 25 -bf 2 -f rtp rtp://127.0.0.1:{port}?pkt_size=1200 -map 1:a -c:a aac -b:a 96k -ac 2 \
         -f rtp {} rtp://127.0.0.1:{}?pkt_size=1200",
        sdp.map_or(String::new(), |file| format!("-sdp_file {file}")),
        port + 2
    );
    words.split_whitespace().map(str::to_owned).collect()
}

/// The description that ffmpeg writes for [`audio_and_video`].
fn description(test: &Alone, port: u16) -> PathBuf {
    let file = test.folder().join("av.sdp");
    let name = file.display().to_string();
    let mut args: Vec<String> = QUIET.iter().map(|arg| (*arg).to_owned()).collect();
    args.push("-y".to_owned());
    args.extend(audio_and_video(port, "0.2", Some(&name)));
    let (code, output) = run(test.folder(), "describe", "ffmpeg", &args, seconds(30));
    assert_eq!(code, Some(0), "{output}");
    file
}

#[test]
fn audio_and_video_of_one_sdp_are_one_stream_on_one_clock() {
    let test = Alone::begin("sdp-audio-video");
    let port = ports();
    let sdp = description(&test, port).display().to_string();
    let config = format!(
        "[[rtp.sessions]]\nid = \"studio/av\"\nsdp = {sdp:?}\nsources = [\"127.0.0.1\"]\ntags = [\"studio\"]\n"
    );
    let engine = engine(&test, &config);
    let before = engine.wait_status("studio/av", "pending", seconds(5));
    assert_eq!(before["tags"], json!(["studio"]));
    let args = audio_and_video(port, "14", None);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let sender = media::ffmpeg(&test, "sender", &args);
    let record = engine.wait_stream("studio/av", "audio and video", seconds(20), |s| {
        s["status"] == "active" && s["video_codec"] == "H264" && s["audio_codec"] == "AAC"
    });
    assert_eq!(record["resolution"], "640x360", "{record:#}");
    wait_for(
        "sender reports of both, and ours to it",
        seconds(20),
        || {
            let stats = engine.stats("studio/av");
            let told = |at: usize| {
                let medium = &stats["rtp"]["media"][at];
                medium["clock"].is_object() && medium["rtcp"]["sent"].as_u64() > Some(0)
            };
            told(0) && told(1) && number(&stats, "audio_frames") > 100.0
        },
    );
    let stats = engine.stats("studio/av");
    for key in ["packets_lost", "packets_dropped", "frames_damaged"] {
        assert!(number(&stats, key) == 0.0, "{key}: {stats:#}");
    }
    let tracks = engine.stream("studio/av").expect("it is there")["tracks"].clone();
    let tracks = tracks.as_array().expect("tracks").clone();
    assert_eq!(tracks.len(), 2, "{tracks:#?}");
    assert_eq!(tracks[1]["sample_rate"], 48_000);
    // One machine, one clock: what both media say of one moment is close.
    let ntp = |at: usize| number(&medium(&engine, "studio/av", at)["clock"], "ntp");
    assert!((ntp(0) - ntp(1)).abs() < 6.0);
    drop(sender);
    engine.wait_status("studio/av", "pending", seconds(15));
}

/// GStreamer's H.264, 640×360 at 25 frames a second, 2 Mb/s.
const GST_VIDEO: &str = "videotestsrc is-live=true ! video/x-raw,width=640,height=360,framerate=25/1 \
    ! x264enc tune=zerolatency bitrate=2000 key-int-max=25";

fn gstreamer(test: &Alone, pipeline: &str) -> Process {
    let args: Vec<&str> = ["-q", "-e"]
        .into_iter()
        .chain(pipeline.split_whitespace())
        .collect();
    Process::start(test.folder(), "gst-launch", "gst-launch-1.0", &args)
}

#[test]
fn what_a_gstreamer_sender_loses_comes_back_by_nack_and_rtx() {
    let test = Alone::begin("gst-nack-rtx");
    let port = ports();
    let config = format!(
        "[[rtp.sessions]]\nid = \"studio/rtx\"\nport = {port}\naddress = \"127.0.0.1\"\n\
         payload_types = {{ 96 = \"H264\" }}\nrtx = {{ 97 = 96 }}\nfeedback = [\"nack\", \"pli\"]\n\
         rtcp_to = \"127.0.0.1:{}\"\njitter_buffer = \"1500ms\"\n",
        port + 8
    );
    let engine = engine(&test, &config);
    let pipeline = format!(
        "rtpsession name=s rtp-profile=avpf rtcp-min-interval=300000000 {GST_VIDEO} \
         ! rtph264pay mtu=700 config-interval=-1 pt=96 ssrc=1111111111 \
         ! rtprtxsend payload-type-map=application/x-rtp-pt-map,96=(uint)97 \
         ssrc-map=application/x-rtp-ssrc-map,1111111111=(uint)2222222222 max-size-packets=1000 \
         ! s.send_rtp_sink s.send_rtp_src ! identity drop-probability=0.05 \
         ! udpsink host=127.0.0.1 port={port} \
         s.send_rtcp_src ! udpsink host=127.0.0.1 port={} sync=false async=false \
         udpsrc port={} ! s.recv_rtcp_sink",
        port + 1,
        port + 8
    );
    let _sender = gstreamer(&test, &pipeline);
    engine.wait_status("studio/rtx", "active", seconds(15));
    wait_for("a hundred packets are given back", seconds(30), || {
        let rtp = medium(&engine, "studio/rtx", 0);
        rtp["recovered"]["rtx"].as_u64() >= Some(100)
    });
    let rtp = medium(&engine, "studio/rtx", 0);
    // RTX packets are lost as often; each is asked for again while there is time.
    let (lost, dropped) = (whole(&rtp["packets_lost"]), whole(&rtp["packets_dropped"]));
    assert!(dropped * 50 <= lost, "{rtp:#}");
    assert!(whole(&rtp["feedback"]["nacks_sent"]) > 0, "{rtp:#}");
    assert!(number(&rtp, "rtt_ms") > 0.0, "{rtp:#}");
    assert_eq!(rtp["ssrc"], 1_111_111_111_u64);
}

#[test]
fn what_a_gstreamer_sender_loses_comes_back_by_fec() {
    let test = Alone::begin("gst-fec");
    let port = ports();
    let config = format!(
        "[[rtp.sessions]]\nid = \"studio/fec\"\nport = {port}\naddress = \"127.0.0.1\"\n\
         payload_types = {{ 33 = \"MP2T\" }}\nfec = true\njitter_buffer = \"800ms\"\n"
    );
    let engine = engine(&test, &config);
    let fec = "fec-encoders=fec,0=\"rtpst2022-1-fecenc\\ rows\\=5\\ columns\\=5\";";
    let pipeline = format!(
        "{GST_VIDEO} ! mpegtsmux ! tsparse set-timestamps=true alignment=7 \
         ! rtpmp2tpay pt=33 mtu=1328 ssrc=0 ! b.send_rtp_sink_0 \
         b.send_rtp_src_0 ! identity drop-probability=0.02 ! udpsink host=127.0.0.1 port={port} \
         b.send_fec_src_0_0 ! udpsink host=127.0.0.1 port={} async=false \
         b.send_fec_src_0_1 ! udpsink host=127.0.0.1 port={} async=false",
        port + 2,
        port + 4
    );
    let head = ["-q", "-e", "rtpbin", "name=b", fec];
    let args: Vec<&str> = head
        .into_iter()
        .chain(pipeline.split_whitespace())
        .collect();
    let _sender = Process::start(test.folder(), "gst-launch", "gst-launch-1.0", &args);
    engine.wait_stream("studio/fec", "video in MPEG-TS", seconds(15), |s| {
        s["status"] == "active" && s["container"] == "mpegts" && s["video_codec"] == "H264"
    });
    wait_for("thirty packets are given back", seconds(30), || {
        let rtp = medium(&engine, "studio/fec", 0);
        rtp["recovered"]["fec"].as_u64() >= Some(30)
    });
    let rtp = medium(&engine, "studio/fec", 0);
    // Four losses at the corners of a rectangle are beyond it, one matrix in some thousands.
    assert!(whole(&rtp["packets_dropped"]) <= 4, "{rtp:#}");
    assert_eq!(rtp["fec"]["refused"], 0, "{rtp:#}");
}

#[test]
fn a_group_is_received_from_its_source_alone() {
    let test = Alone::begin("ssm");
    let port = ports();
    let config = format!(
        "[[rtp.sessions]]\nid = \"studio/ssm\"\nport = {port}\ngroup = \"232.77.1.1\"\n\
         source = \"127.0.0.2\"\ninterface = \"lo\"\npayload_types = {{ 33 = \"MP2T\" }}\n"
    );
    let engine = engine(&test, &config);
    let clip = media::clip_h264(&test);
    let send = |name: &str, from: &str| {
        let url = format!("rtp://232.77.1.1:{port}?localaddr={from}&ttl=1");
        media::loop_file(&test, name, &clip, "rtp_mpegts", &url)
    };
    let _stranger = send("stranger", "127.0.0.3");
    std::thread::sleep(seconds(2));
    let waiting = engine.stream("studio/ssm").expect("it is there");
    assert_eq!(waiting["status"], "pending", "{waiting:#}");
    let _source = send("source", "127.0.0.2");
    let record = engine.wait_stream("studio/ssm", "video", seconds(15), |s| {
        s["status"] == "active" && s["video_codec"] == "H264"
    });
    let from = record["source_addr"].as_str().unwrap_or("");
    assert!(from.starts_with("127.0.0.2:"), "{record:#}");
    let rtp = medium(&engine, "studio/ssm", 0);
    assert_eq!(rtp["packets_foreign"], 0, "{rtp:#}");
    assert_eq!(rtp["packets_lost"], 0, "{rtp:#}");
}

#[test]
fn a_session_is_made_and_ended_at_run_time() {
    let test = Alone::begin("post-session");
    let port = ports();
    let engine = Engine::start(&test, &["stream.block_for=0s"]);
    let body = json!({
        "type": "rtp",
        "id": "studio/new",
        "sdp": format!("v=0\nc=IN IP4 127.0.0.1\nm=video {port} RTP/AVP 33\n"),
    });
    let post = || engine.post("/api/v1/streams", &body).expect("an answer");
    assert_eq!(post().status, 201);
    assert_eq!(post().status, 409);
    engine.wait_status("studio/new", "pending", seconds(5));
    let clip = media::clip_h264(&test);
    let url = format!("rtp://127.0.0.1:{port}");
    let _sender = media::loop_file(&test, "sender", &clip, "rtp_mpegts", &url);
    engine.wait_stream("studio/new", "video", seconds(15), |s| {
        s["status"] == "active" && s["resolution"] == "640x360"
    });
    let path = format!("/api/v1/streams/{}", encode("studio/new"));
    assert_eq!(engine.request("DELETE", &path).map(|r| r.status), Some(202));
    wait_for("its ports are free", seconds(5), || {
        UdpSocket::bind(("127.0.0.1", port)).is_ok()
    });
    assert_eq!(post().status, 201);
    engine.wait_status("studio/new", "active", seconds(10));
}
