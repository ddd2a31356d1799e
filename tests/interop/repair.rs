//! What a sender and the engine do about losses, against GStreamer's rtpbin and FEC encoder:
//! NACK and RTX (RFC 4585, 4588), PLI and FIR, SMPTE ST 2022-1, SMPTE ST 2022-7.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mirror_tests::engine::{Engine, find, number};
use mirror_tests::process::Process;
use mirror_tests::relay::{Passed, Relay, free_ports};
use mirror_tests::{Alone, poll, seconds};
use serde_json::Value;

const FRAMES: f64 = 150.0;

/// H.264 at 2 Mb/s: some ten packets a frame.
fn h264(key_frame_distance: u32) -> String {
    format!(
        "videotestsrc is-live=true num-buffers=150 pattern=ball \
         ! video/x-raw,format=I420,width=640,height=360,framerate=30/1 \
         ! x264enc speed-preset=ultrafast tune=zerolatency bitrate=2000 \
           key-int-max={key_frame_distance} option-string=scenecut=0:nal-hrd=cbr:force-cfr=1:filler=1"
    )
}

fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

fn gst(test: &Alone, name: &str, pipeline: &str) -> Process {
    Process::start(test.folder(), name, "gst-launch-1.0", &words(pipeline))
}

fn is_every(number: u64, n: u64) -> bool {
    number % n == n - 1
}

/// The figures of `id`, once `wanted` holds of them.
fn stats_when(engine: &Engine, id: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let mut last = Value::Null;
    let done = poll(seconds(15), || {
        engine.stream(id)?;
        last = engine.stats(id);
        wanted(&last).then_some(())
    });
    assert!(done.is_some(), "{id}: {last:#}\n{}", engine.process.tail());
    last
}

fn has_frames(stats: &Value, frames: f64) -> bool {
    find(stats, "video_frames") >= Some(frames)
}

/// Every frame came whole, whatever was lost on the way.
fn assert_whole(stats: &Value, frames: f64) {
    assert_eq!(number(stats, "video_frames"), frames, "{stats:#}");
    for key in ["frames_damaged", "frames_dropped", "packets_dropped"] {
        assert_eq!(number(stats, key), 0.0, "{key}: {stats:#}");
    }
}

fn medium(stats: &Value) -> &Value {
    &stats["rtp"]["media"][0]
}

/// A session with feedback, its sender's rtpbin, and the relays between them.
struct Feedback {
    id: &'static str,
    rtp: Relay,
    rtcp: Relay,
    sender: Process,
}

/// Starts such a session: the engine hears RTP and RTCP on `port` and the next one.
fn feedback_session(
    test: &Alone,
    id: &'static str,
    port: u16,
    key_frame_distance: u32,
    keep: impl FnMut(u64, &[u8]) -> bool + Send + 'static,
) -> Feedback {
    let ear = free_ports(1, 0)[0];
    let rtp = Relay::start(port, None, keep);
    let rtcp = Relay::start(port + 1, Some(ear), |_, _| true);
    let chain = h264(key_frame_distance);
    let pipeline = format!(
        "-q rtpbin name=r rtp-profile=avpf \
         {chain} ! rtph264pay pt=96 config-interval=-1 mtu=1200 \
         ! rtprtxsend payload-type-map=application/x-rtp-pt-map,96=(uint)97 max-size-packets=2000 \
         ! r.send_rtp_sink_0 \
         r.send_rtp_src_0 ! udpsink host=127.0.0.1 port={} sync=false \
         r.send_rtcp_src_0 ! udpsink host=127.0.0.1 port={} sync=false async=false \
         udpsrc address=127.0.0.1 port={ear} caps=application/x-rtcp ! r.recv_rtcp_sink_0",
        rtp.port(),
        rtcp.port()
    );
    let sender = gst(test, id, &pipeline);
    Feedback {
        id,
        rtp,
        rtcp,
        sender,
    }
}

fn session(id: &str, port: u16, more: &str) -> String {
    format!(
        "[[rtp.sessions]]\nid = \"{id}\"\nport = {port}\npayload_types = {{ 96 = \"H264\" }}\n\
         jitter_buffer = \"300ms\"\nbandwidth = 20000000\n{more}\n"
    )
}

#[test]
fn rtpbin_sends_again_what_a_nack_names_and_a_key_frame_when_pli_or_fir_asks() {
    let test = Alone::begin("rtp-feedback");
    let ports = free_ports(3, 1);
    let config = session(
        "rtx",
        ports[0],
        "rtx = { 97 = 96 }\nfeedback = [\"nack\", \"pli\"]",
    ) + &session("pli", ports[1], "feedback = [\"pli\"]")
        + &session("fir", ports[2], "feedback = [\"fir\"]");
    let config = test.write("engine.toml", &config).display().to_string();
    let engine = Engine::start_with(&test, &[], &["--config", &config]);
    // Media packets only; what is sent again comes through. Losses begin when the first sender
    // report has told where RTCP goes (the relays' ports are not neighbours), and end before the
    // sender does, which then could send nothing again.
    let lossy = |n: u64, packet: &[u8]| {
        let is_media = packet.get(1).is_some_and(|b| b & 0x7F == 96);
        !(is_media && (700..1500).contains(&n) && (is_every(n, 20) || (n % 200) < 4))
    };
    let rtx = feedback_session(&test, "rtx", ports[0], 30, lossy);
    // The first key frame is lost, and no other would ever come.
    let late = |n: u64, _: &[u8]| n >= 120;
    let pli = feedback_session(&test, "pli", ports[1], 9000, late);
    let fir = feedback_session(&test, "fir", ports[2], 9000, late);

    let stats = stats_when(&engine, rtx.id, |s| has_frames(s, FRAMES));
    assert_whole(&stats, FRAMES);
    let lost = Passed::get(&rtx.rtp.passed().lost);
    let m = medium(&stats);
    assert!(lost > 30, "the relay lost only {lost}");
    assert_eq!(m["recovered"]["rtx"], lost, "{stats:#}");
    assert!(m["feedback"]["nacks_sent"].as_u64() > Some(0), "{stats:#}");
    assert!(Passed::get(&rtx.rtcp.passed().nacks) > 0);
    assert!(Passed::get(&rtx.rtcp.passed().reports) > 0);
    assert!(m["rtcp"]["sr"].as_u64() > Some(0), "{stats:#}");

    for (asked, counter) in [(&pli, "plis_sent"), (&fir, "firs_sent")] {
        let stats = stats_when(&engine, asked.id, |s| {
            find(s, "key_frames") >= Some(1.0) && has_frames(s, 60.0)
        });
        assert!(number(medium(&stats), counter) >= 1.0, "{stats:#}");
        // Nothing but what came before the key frame, which nobody can decode.
        let undecodable = number(&stats, "frames_undecodable");
        assert_eq!(number(&stats, "frames_damaged"), undecodable, "{stats:#}");
        assert!(Passed::get(&asked.rtcp.passed().key_frame_requests) > 0);
        assert_eq!(Passed::get(&asked.rtp.passed().lost), 120);
    }
    drop((rtx.sender, pli.sender, fir.sender));
}

/// A pipeline of `media` to the port `to`, its FEC two and four ports above `base`.
fn fec(media: &str, to: u16, base: u16, has_rows: bool) -> String {
    let columns = base + 2;
    let rows = if has_rows {
        format!("udpsink host=127.0.0.1 port={}", base + 4)
    } else {
        "fakesink".to_owned()
    };
    format!(
        "-q {media} ! rtpst2022-1-fecenc name=f rows=5 columns=10 pt=97 enable-row-fec={has_rows} \
         f.src ! queue ! udpsink host=127.0.0.1 port={to} \
         f.fec_0 ! queue ! udpsink host=127.0.0.1 port={columns} async=false \
         f.fec_1 ! queue ! {rows} async=false"
    )
}

#[test]
fn st_2022_1_of_gstreamer_and_two_paths_of_st_2022_7_give_back_what_is_lost() {
    let test = Alone::begin("rtp-fec");
    let ports = free_ports(4, 5);
    let (both, column, two, other) = (ports[0], ports[1], ports[2], ports[3]);
    let config = format!(
        "{}{}{}",
        session("fec-2d", both, "fec = true"),
        session(
            "fec-column",
            column,
            &format!("fec_column_port = {}", column + 2)
        ),
        session(
            "two-paths",
            two,
            &format!("second_leg = {{ port = {other} }}")
        )
    )
    .replace("\"H264\"", "\"MP2T\"")
    // Columns come during the matrix after theirs: half a second for 100 packets.
    .replace("300ms", "1500ms");
    let config = test.write("engine.toml", &config).display().to_string();
    let engine = Engine::start_with(&test, &[], &["--config", &config]);

    // The standard wants SSRC 0 where FEC is, and so does the encoder.
    let media = format!(
        "{} ! h264parse ! mpegtsmux alignment=7 ! rtpmp2tpay pt=96 ssrc=0",
        h264(30)
    );
    // One in every row of ten at the most, and bursts that only columns mend.
    let rows = Relay::start(both, None, |n, _| {
        !((100..850).contains(&n) && (is_every(n, 11) || n % 200 < 3))
    });
    let columns = Relay::start(column, None, |n, _| {
        !((100..850).contains(&n) && n % 120 < 5)
    });
    let first = Relay::start(two, None, |n, _| !is_every(n, 7));
    let second = Relay::start(other, None, |n, _| !is_every(n + 3, 7));
    let senders = [
        gst(&test, "fec-2d", &fec(&media, rows.port(), both, true)),
        gst(
            &test,
            "fec-column",
            &fec(&media, columns.port(), column, false),
        ),
        gst(
            &test,
            "two-paths",
            &format!(
                "-q {media} ! tee name=t ! queue ! udpsink host=127.0.0.1 port={} \
                 t. ! queue ! udpsink host=127.0.0.1 port={}",
                first.port(),
                second.port()
            ),
        ),
    ];
    for (id, relay, method) in [
        ("fec-2d", &rows, "fec"),
        ("fec-column", &columns, "fec"),
        ("two-paths", &first, "2022-7"),
    ] {
        let stats = stats_when(&engine, id, |s| has_frames(s, FRAMES));
        assert_whole(&stats, FRAMES);
        let lost = Passed::get(&relay.passed().lost);
        assert!(lost > 10, "{id}: the relay lost only {lost}");
        let recovered = &medium(&stats)["recovered"][method];
        assert!(
            recovered.as_u64() >= Some(lost / 2),
            "{id}: {lost} lost, {stats:#}"
        );
        assert_eq!(medium(&stats)["packets_dropped"], 0, "{stats:#}");
    }
    let legs = medium(&engine.stats("two-paths"))["legs"].clone();
    assert!(legs[0]["packets_lost"].as_u64() > Some(0), "{legs:#}");
    assert!(legs[1]["packets_lost"].as_u64() > Some(0), "{legs:#}");
    assert!(Passed::get(&second.passed().lost) > 10);
    drop(senders);
}

/// A relay to `to` that lets nothing pass until it is opened.
fn gate(to: u16) -> (Relay, Arc<AtomicBool>) {
    let open = Arc::new(AtomicBool::new(false));
    let is_open = Arc::clone(&open);
    let relay = Relay::start(to, None, move |_, _| is_open.load(Ordering::Relaxed));
    (relay, open)
}

/// What the API says of the wait for gaps of `id`, once it is as `wanted` and why.
fn wait_for_gaps(engine: &Engine, id: &str, cause: &str, wanted: RangeInclusive<f64>) -> Value {
    let stats = stats_when(engine, id, |s| {
        let hold = &medium(s)["jitter_buffer"];
        hold["cause"] == cause
            && hold["effective_ms"]
                .as_f64()
                .is_some_and(|ms| wanted.contains(&ms))
    });
    medium(&stats)["jitter_buffer"].clone()
}

#[test]
fn gaps_are_waited_for_as_long_as_a_fec_matrix_or_the_slower_path_takes() {
    let test = Alone::begin("rtp-hold");
    let ports = free_ports(3, 5);
    let (fec_port, first, second) = (ports[0], ports[1], ports[2]);
    let head = "payload_types = { 96 = \"MP2T\" }\nbandwidth = 20000000\n";
    let config = format!(
        "[[rtp.sessions]]\nid = \"fec\"\nport = {fec_port}\nfec_column_port = {}\n{head}\
         [[rtp.sessions]]\nid = \"paths\"\nport = {first}\nsecond_leg = {{ port = {second} }}\n{head}",
        fec_port + 2
    );
    let config = test.write("engine.toml", &config).display().to_string();
    let engine = Engine::start_with(&test, &[], &["--config", &config]);
    // Two minutes of some 200 packets a second.
    let media = format!(
        "{} ! h264parse ! mpegtsmux alignment=7 ! rtpmp2tpay pt=96 ssrc=0",
        h264(30).replace("num-buffers=150", "num-buffers=3600")
    );
    let (columns, columns_open) = gate(fec_port + 2);
    let (slower, slower_open) = gate(second);
    let matrix = format!(
        "-q {media} ! rtpst2022-1-fecenc name=f rows=5 columns=10 pt=97 enable-row-fec=false \
         f.src ! queue ! udpsink host=127.0.0.1 port={fec_port} \
         f.fec_0 ! queue ! udpsink host=127.0.0.1 port={} async=false \
         f.fec_1 ! queue ! fakesink async=false",
        columns.port()
    );
    let paths = format!(
        "-q {media} ! tee name=t ! queue ! udpsink host=127.0.0.1 port={first} \
         t. ! queue max-size-time=2000000000 max-size-buffers=0 \
         ! udpsink host=127.0.0.1 port={} ts-offset=400000000",
        slower.port()
    );
    let senders = [gst(&test, "fec", &matrix), gst(&test, "paths", &paths)];

    // Nothing that repairs was seen: what is set for all sessions.
    for id in ["fec", "paths"] {
        stats_when(&engine, id, |s| has_frames(s, 60.0));
        let hold = wait_for_gaps(&engine, id, "configured", 50.0..=50.0);
        assert_eq!(hold["follows"], true, "{id}: {hold:#}");
    }
    columns_open.store(true, Ordering::Relaxed);
    slower_open.store(true, Ordering::Relaxed);
    // Two matrices of 50 packets: half a second, as even as the encoder's bit rate is.
    wait_for_gaps(&engine, "fec", "fec", 300.0..=1000.0);
    // A quarter more than the second path lags behind.
    wait_for_gaps(&engine, "paths", "2022-7", 450.0..=1000.0);
    for id in ["fec", "paths"] {
        let stats = engine.stats(id);
        let hold = &medium(&stats)["jitter_buffer"];
        assert_eq!(hold["too_short"], false, "{id}: {hold:#}");
        assert_eq!(number(&stats, "packets_dropped"), 0.0, "{id}: {stats:#}");
    }
    drop(senders);
}
