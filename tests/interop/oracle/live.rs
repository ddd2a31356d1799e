//! The same, live: what the API says of streams that ffmpeg sends over SRT and RTP.

use mirror_tests::engine::{Engine, find, number};
use mirror_tests::media;
use mirror_tests::probe::{Probed, ffprobe};
use mirror_tests::process::Process;
use mirror_tests::{Alone, poll, seconds};
use serde_json::Value;

use super::compare::{self, Allow, Check};
use super::{FIFTY, HDR10, PICTURE, X264, X265, make, many_tracks, names};

/// The end of the first stretch of the stream: frames whose types the API's counters hold.
struct Sent {
    id: String,
    probed: Vec<Probed>,
    allow: &'static [Allow],
    sender: Process,
}

/// Starts to send a new file.
fn send(
    test: &Alone,
    engine: &Engine,
    (name, arguments, allow): (&str, &str, &'static [Allow]),
    ssrc: Option<u32>,
) -> Sent {
    let file = make(test, &format!("{name}.ts"), arguments);
    let probed = ffprobe(test, &file);
    let path = file.display().to_string();
    let srt = engine.srt_url(&format!("live/{name}"));
    let rtp = engine.rtp_url();
    let mut args = vec!["-re", "-i", &path, "-map", "0", "-c", "copy", "-f"];
    let option = ssrc.map(|ssrc| format!("ssrc={ssrc}"));
    match &option {
        None => args.extend(["mpegts", &srt]),
        Some(option) => args.extend(["rtp_mpegts", "-rtp_muxer_options", option, &rtp]),
    }
    Sent {
        id: match ssrc {
            None => format!("live/{name}"),
            Some(ssrc) => format!("rtp_{ssrc:08x}"),
        },
        probed,
        allow,
        sender: media::ffmpeg(test, name, &args),
    }
}

/// How the tracks of the record and ffprobe's streams differ.
fn differences(sent: &Sent, record: &Value) -> Vec<String> {
    let mut check = Check::new(&sent.id, sent.allow);
    let tracks = record["tracks"].as_array().cloned().unwrap_or_default();
    check.fact("tracks", tracks.len(), sent.probed.len());
    for (track, stream) in tracks.iter().zip(&sent.probed) {
        let codec = names::codec(stream.text("codec_name"));
        check.fact("codec", track["codec"].clone(), codec);
        if stream.is_video() {
            compare::facts(&mut check, track, stream);
            let rate = names::fraction(&stream.facts["r_frame_rate"]);
            let rate = (rate * 1000.0).round() / 1000.0;
            check.fact("frame rate", track["frame_rate"].clone(), rate);
        } else {
            compare::sound(&mut check, track, stream);
        }
    }
    check.finish()
}

/// Records outlive their senders.
const KEPT: [&str; 2] = ["stream.reconnect_grace=60s", "rtp.session_timeout=60s"];

/// Frames that a sender takes with it when it ends: what does not fill a datagram, and what libsrt
/// has not sent yet.
const CUT: f64 = 5.0;

/// Waits until the sender has ended and all that it sent is there, and holds figures and facts
/// against ffprobe's.
fn verify(engine: &Engine, sent: &mut Sent) {
    assert!(sent.sender.wait(seconds(20)).success());
    let (id, probed) = (&sent.id, &sent.probed);
    let video = probed.iter().find(|s| s.is_video()).expect("video");
    let frames = video.packets.len() as f64;
    let mut last = Value::Null;
    let mut came = |stats: &Value| {
        let is_still = last == stats["video_frames"];
        last = stats["video_frames"].clone();
        std::thread::sleep(seconds(1));
        is_still && find(stats, "video_frames") >= Some(frames - CUT)
    };
    let shown = poll(seconds(20), || {
        let record = engine.stream(id)?;
        let stats = engine.stats(id);
        (came(&stats) && differences(sent, &record).is_empty()).then_some(stats)
    });
    let record = engine.stream(id).unwrap_or_default();
    let Some(stats) = shown else {
        let wrong = differences(sent, &record);
        panic!("{id}: {wrong:#?}\n{:#}\n{record:#}", engine.stats(id));
    };
    for key in ["packets_lost", "packets_dropped", "continuity_errors"] {
        assert_eq!(number(&stats, key), 0.0, "{key}: {stats:#}");
    }
    assert!(number(&stats, "frames_damaged") <= 1.0, "{stats:#}");
    let all = engine.get("/api/v1/streams/stats/video");
    let streams = all["streams"].as_array().cloned().unwrap_or_default();
    let ours = streams.iter().find(|s| s["id"] == id.as_str());
    let ours = ours.unwrap_or_else(|| panic!("{id} is not in {all:#}"));
    let whole = number(ours, "frames_assembled") as usize;
    let types: Vec<char> = video.types().chars().take(whole).collect();
    let count = |letter| types.iter().filter(|t| **t == letter).count() as f64;
    let keys = video.key_packets().iter().filter(|n| **n < whole).count();
    assert_eq!(number(ours, "key_frames"), keys as f64, "{ours:#}");
    assert_eq!(number(ours, "p_frames"), count('P'), "{ours:#}");
    assert_eq!(number(ours, "b_frames"), count('B'), "{ours:#}");
}

#[test]
fn what_the_api_says_of_live_hdr_interlaced_and_many_tracks_is_what_ffprobe_finds() {
    let test = Alone::begin("oracle-live");
    let engine = Engine::start(&test, &KEPT);
    let hdr = format!(
        "{PICTURE} {X265} -pix_fmt yuv420p10le -x265-params log-level=error:pools=1:{HDR10} \
         -f mpegts"
    );
    let fields = format!(
        "{PICTURE} -vf setfield=tff -flags +ildct+ilme {X264} \
         -x264-params interlaced=1:tff=1:keyint=25:bframes=3:b-pyramid=normal -f mpegts"
    );
    let tracks = many_tracks();
    let mut sent = [
        send(&test, &engine, ("hdr", &hdr, &[]), None),
        send(&test, &engine, ("fields", &fields, &[]), None),
        send(
            &test,
            &engine,
            ("tracks", &tracks, &[Allow::AudioLayer]),
            None,
        ),
        send(&test, &engine, ("rtp-hdr", &hdr, &[]), Some(0x5000_0001)),
        send(
            &test,
            &engine,
            ("rtp-fields", &fields, &[]),
            Some(0x5000_0002),
        ),
    ];
    for sent in &mut sent {
        verify(&engine, sent);
    }
}

#[test]
fn what_the_api_says_of_live_50_megabits_a_second_is_what_ffprobe_finds() {
    let test = Alone::begin("oracle-live-50");
    let engine = Engine::start(&test, &KEPT);
    let fifty = FIFTY.replace("DURATION", "2");
    let mut sent = send(&test, &engine, ("fifty", &fifty, &[]), None);
    verify(&engine, &mut sent);
}
