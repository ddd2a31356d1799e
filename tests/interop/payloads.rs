//! Every RTP payload format that ffmpeg and GStreamer can send, to configured sessions with the
//! sender's own description and to the shared port: codec, picture size, sample rate and frames
//! are what was sent, nothing is damaged, and RTCP is heard and spoken.
//!
//! Neither program of Debian 12 sends AV1 or JPEG XS over RTP, and neither muxes AV1 into
//! MPEG-TS: these are covered by the captures (`tests/captures`) and the depacketisers' own tests.
//! AC-3 and KLV come from GStreamer alone.

use std::fmt::Write as _;
use std::path::PathBuf;

use mirror_tests::engine::{Engine, find, number};
use mirror_tests::media::{self, QUIET};
use mirror_tests::process::{Process, run};
use mirror_tests::relay::free_ports;
use mirror_tests::{Alone, poll, seconds};
use serde_json::Value;

/// Frames of video: six seconds, since ffmpeg sends its second sender report after five.
const FRAMES: f64 = 150.0;
const PICTURE: &str = "-f lavfi -i testsrc2=size=320x180:rate=25:duration=6";
const SOUND: &str = "-f lavfi -i sine=frequency=440:sample_rate=48000:duration=6 -ac 2";

/// What one sender sends, and what the engine is to say of it.
struct Format {
    /// Stream, clip and log are called so.
    name: &'static str,
    /// ffmpeg's encoders.
    encode: &'static str,
    /// Of the RTP muxer for audio.
    audio_flags: &'static str,
    video: &'static str,
    audio: &'static str,
}

const WITH_DESCRIPTION: [Format; 5] = [
    Format {
        name: "h264-aac",
        encode: "-c:v libx264 -preset ultrafast -bf 2 -g 25 -c:a aac -b:a 96k",
        audio_flags: "",
        video: "H264",
        audio: "AAC",
    },
    Format {
        name: "h265-opus",
        encode: "-c:v libx265 -preset ultrafast -g 25 -x265-params log-level=error:pools=1 \
                 -c:a libopus -b:a 64k",
        audio_flags: "",
        video: "H265",
        audio: "OPUS",
    },
    Format {
        name: "vp8-latm",
        encode: "-c:v libvpx -deadline realtime -cpu-used 8 -g 25 -c:a aac -b:a 96k",
        audio_flags: "-rtpflags latm",
        video: "VP8",
        audio: "AAC_LATM",
    },
    Format {
        name: "vp9-l16",
        encode: "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -g 25 -c:a pcm_s16be",
        audio_flags: "",
        video: "VP9",
        audio: "L16",
    },
    Format {
        name: "mpeg2-l24",
        encode: "-c:v mpeg2video -g 12 -b:v 1M -c:a pcm_s24be",
        audio_flags: "",
        video: "MPEG2",
        audio: "L24",
    },
];

fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

fn clip(test: &Alone, name: &str, encode: &str) -> PathBuf {
    let extension = if encode.contains("-f mpegts") {
        "ts"
    } else {
        "mkv"
    };
    let make = format!("{PICTURE} {SOUND} {encode}");
    media::clip(test, &format!("rtp-6s-{name}.{extension}"), &words(&make))
}

/// ffmpeg with video to one port and audio to another, and a description of both.
fn arguments<'a>(
    file: &'a str,
    urls: &'a [String; 2],
    flags: &'a str,
    sdp: &'a str,
) -> Vec<&'a str> {
    let mut args = vec!["-re", "-i", file, "-map", "0:v", "-c", "copy"];
    args.extend([
        "-strict",
        "experimental",
        "-f",
        "rtp",
        &urls[0],
        "-map",
        "0:a",
        "-c",
        "copy",
    ]);
    args.extend(words(flags));
    args.extend(["-f", "rtp", "-sdp_file", sdp, &urls[1]]);
    args
}

/// One sender with a configured session.
struct Described {
    file: String,
    sdp: String,
    urls: [String; 2],
}

fn describe(test: &Alone, format: &Format, ports: [u16; 2]) -> Described {
    let file = clip(test, format.name, format.encode).display().to_string();
    let sdp = test.folder().join(format!("{}.sdp", format.name));
    let described = Described {
        file,
        sdp: sdp.display().to_string(),
        urls: ports.map(|port| format!("rtp://127.0.0.1:{port}")),
    };
    let Described { file, sdp, urls } = &described;
    // A short run, for the description alone.
    let mut args = QUIET.to_vec();
    args.extend(["-t", "0.1"]);
    args.extend(arguments(file, urls, format.audio_flags, sdp));
    let name = format!("describe-{}", format.name);
    let (code, output) = run(test.folder(), &name, "ffmpeg", &args, seconds(10));
    assert_eq!(code, Some(0), "{output}");
    described
}

/// The tracks' facts, frames and RTCP of a stream whose media were all sent.
fn check(record: &Value, stats: &Value, video: &str, audio: &str, cut: f64) {
    let shown = format!("{record:#}\n{stats:#}");
    if !video.is_empty() {
        assert_eq!(record["video_codec"], video, "{shown}");
        assert_eq!(record["resolution"], "320x180", "{shown}");
    }
    if !audio.is_empty() {
        assert_eq!(record["audio_codec"], audio, "{shown}");
        let tracks = record["tracks"].as_array().cloned().unwrap_or_default();
        let track = tracks.iter().find(|t| t["codec"] == audio);
        let track = track.unwrap_or_else(|| panic!("no audio: {shown}"));
        assert_eq!(track["sample_rate"], 48_000, "{shown}");
        assert_eq!(track["channels"], 2, "{shown}");
        assert!(number(stats, "audio_frames") > 50.0, "{shown}");
    }
    for key in ["frames_dropped", "packets_dropped", "continuity_errors"] {
        assert_eq!(number(stats, key), 0.0, "{key}: {shown}");
    }
    assert!(number(stats, "frames_damaged") <= cut, "{shown}");
    let media = stats["rtp"]["media"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    assert!(!media.is_empty(), "{shown}");
    for medium in &media {
        assert!(
            medium["rtcp"]["sent"].as_u64() > Some(0),
            "receiver reports: {shown}"
        );
        assert!(
            medium["rtcp"]["received"].as_u64() > Some(0),
            "RTCP: {shown}"
        );
        // The shared port counts no types.
        if !record["id"]
            .as_str()
            .is_some_and(|id| id.starts_with("rtp_"))
        {
            assert!(
                medium["rtcp"]["sr"].as_u64() > Some(0),
                "sender reports: {shown}"
            );
        }
        assert_eq!(medium["packets_lost"], 0, "{shown}");
    }
}

/// Waits until all frames of `id` are there and reports were sent, and checks its facts.
///
/// `cut`: frames whose end the sender kept for itself.
fn await_and_check(engine: &Engine, id: &str, video: &str, audio: &str, cut: f64) {
    let mut last = Value::Null;
    let done = poll(seconds(12), || {
        engine.stream(id)?;
        last = engine.stats(id);
        let reported = last["rtp"]["media"].as_array().is_some_and(|media| {
            let sent = |m: &Value| m["rtcp"]["sent"].as_u64() > Some(0);
            !media.is_empty() && media.iter().all(sent)
        });
        let all = video.is_empty() || find(&last, "video_frames") >= Some(FRAMES);
        let heard = audio.is_empty() || find(&last, "audio_frames") > Some(50.0);
        (reported && all && heard).then_some(())
    });
    let record = engine.stream(id).unwrap_or_default();
    assert!(
        done.is_some(),
        "{id}: not all came\n{record:#}\n{last:#}\n{}",
        engine.process.tail()
    );
    check(&record, &last, video, audio, cut);
    if !video.is_empty() {
        assert_eq!(number(&last, "video_frames"), FRAMES, "{id}: {last:#}");
    }
}

#[test]
fn every_payload_format_of_ffmpeg_is_received_with_the_senders_own_description() {
    let test = Alone::begin("rtp-ffmpeg-sdp");
    let ports = free_ports(WITH_DESCRIPTION.len() * 2, 1);
    let mut config = String::new();
    let mut senders = Vec::new();
    for (format, pair) in WITH_DESCRIPTION.iter().zip(ports.chunks(2)) {
        let sender = describe(&test, format, [pair[0], pair[1]]);
        let (name, sdp) = (format.name, &sender.sdp);
        let _ = writeln!(config, "[[rtp.sessions]]\nid = \"{name}\"\nsdp = \"{sdp}\"");
        senders.push(sender);
    }
    let config = test.write("engine.toml", &config).display().to_string();
    let engine = Engine::start_with(&test, &[], &["--config", &config]);
    let running: Vec<Process> = WITH_DESCRIPTION
        .iter()
        .zip(&senders)
        .map(|(format, sender)| {
            let sdp = format!("{}.again", sender.sdp);
            let args = arguments(&sender.file, &sender.urls, format.audio_flags, &sdp);
            media::ffmpeg(&test, format.name, &args)
        })
        .collect();
    for format in &WITH_DESCRIPTION {
        await_and_check(&engine, format.name, format.video, format.audio, 0.0);
    }
    drop(running);
}

/// What comes to the shared port: ffmpeg's arguments, the payload type, the codec.
const AD_HOC: [(&str, &str, u8, &str, &str); 9] = [
    (
        "mp2t",
        "-c:v libx264 -preset ultrafast -g 25 -c:a aac -f mpegts",
        33,
        "H264",
        "AAC",
    ),
    (
        "h264",
        "-c:v libx264 -preset ultrafast -g 25 -an -f mpegts",
        96,
        "H264",
        "",
    ),
    (
        "h265",
        "-c:v libx265 -preset ultrafast -g 25 -x265-params log-level=error:pools=1 -an -f mpegts",
        97,
        "H265",
        "",
    ),
    // Not in the map of payload types: found from its bits.
    (
        "h264-unnamed",
        "-c:v libx264 -preset ultrafast -g 25 -bf 0 -an -f mpegts",
        118,
        "H264",
        "",
    ),
    (
        "vp8",
        "-c:v libvpx -deadline realtime -cpu-used 8 -g 25 -an",
        104,
        "VP8",
        "",
    ),
    (
        "vp9",
        "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -g 25 -an",
        105,
        "VP9",
        "",
    ),
    ("opus", "-vn -c:a libopus -b:a 64k", 101, "", "OPUS"),
    ("l24", "-vn -c:a pcm_s24be", 102, "", "L24"),
    (
        "mpa",
        "-vn -c:a mp2 -b:a 128k -f mpegts",
        14,
        "",
        "MPEG_AUDIO",
    ),
];

const TYPES: &str = "[rtp.payload_types]\n33 = \"MP2T\"\n96 = \"H264\"\n97 = \"H265\"\n\
     14 = \"MPA\"\n101 = \"opus/48000/2\"\n102 = \"L24/48000/2\"\n104 = \"VP8\"\n105 = \"VP9\"\n";

#[test]
fn payload_formats_of_ffmpeg_are_told_apart_on_the_shared_port() {
    let test = Alone::begin("rtp-ffmpeg-shared");
    let files: Vec<String> = AD_HOC
        .iter()
        .map(|(name, encode, ..)| clip(&test, &format!("shared-{name}"), encode))
        .map(|file| file.display().to_string())
        .collect();
    let config = test.write("engine.toml", TYPES).display().to_string();
    let engine = Engine::start_with(&test, &[], &["--config", &config]);
    let url = engine.rtp_url();
    let ssrc = |at: usize| 0x1000_0000 + at;
    let senders: Vec<Process> = AD_HOC
        .iter()
        .zip(&files)
        .enumerate()
        .map(|(at, ((name, _, payload_type, ..), file))| {
            let (ssrc, number) = (ssrc(at).to_string(), payload_type.to_string());
            let format = if *name == "mp2t" { "rtp_mpegts" } else { "rtp" };
            let mut args = vec!["-re", "-i", file, "-c", "copy", "-f", format];
            let options = format!("ssrc={ssrc}");
            if format == "rtp" {
                args.extend(["-strict", "experimental", "-ssrc", &ssrc]);
                args.extend(["-payload_type", &number]);
            } else {
                args.extend(["-rtp_muxer_options", &options]);
            }
            args.push(&url);
            media::ffmpeg(&test, name, &args)
        })
        .collect();
    for (at, (name, _, _, video, audio)) in AD_HOC.iter().enumerate() {
        let id = format!("rtp_{:08x}", ssrc(at));
        // ffmpeg's rtp_mpegts never sends the packets that do not fill a datagram at the end.
        let cut = if *name == "mp2t" { 1.0 } else { 0.0 };
        await_and_check(&engine, &id, video, audio, cut);
    }
    drop(senders);
}

/// GStreamer's payloaders: name, what feeds them, configured payload type, codec.
const GSTREAMER: [(&str, &str, &str, &str); 15] = [
    (
        "mp2t",
        "VIDEO ! x264enc speed-preset=ultrafast tune=zerolatency key-int-max=25 ! h264parse ! mpegtsmux alignment=7 ! rtpmp2tpay pt=96",
        "MP2T",
        "H264",
    ),
    (
        "h264",
        "VIDEO ! x264enc speed-preset=ultrafast tune=zerolatency key-int-max=25 ! rtph264pay pt=96 config-interval=-1",
        "H264",
        "H264",
    ),
    (
        "h264-stap",
        "VIDEO ! x264enc speed-preset=ultrafast bframes=2 key-int-max=25 ! h264parse ! rtph264pay pt=96 config-interval=-1 aggregate-mode=max-stap",
        "H264 packetization-mode=1",
        "H264",
    ),
    (
        "h265",
        "VIDEO ! x265enc speed-preset=ultrafast tune=zerolatency key-int-max=25 ! h265parse ! rtph265pay pt=96 config-interval=-1",
        "H265",
        "H265",
    ),
    (
        "vp8",
        "VIDEO ! vp8enc deadline=1 cpu-used=8 keyframe-max-dist=25 ! rtpvp8pay pt=96",
        "VP8",
        "VP8",
    ),
    (
        "vp9",
        "VIDEO ! vp9enc deadline=1 cpu-used=8 keyframe-max-dist=25 ! rtpvp9pay pt=96",
        "VP9",
        "VP9",
    ),
    (
        "mp4g",
        "AUDIO ! avenc_aac ! aacparse ! rtpmp4gpay pt=96",
        "MPEG4-GENERIC/48000/2 mode=AAC-hbr;config=1190;sizelength=13;indexlength=3;indexdeltalength=3",
        "AAC",
    ),
    (
        "latm",
        "AUDIO ! avenc_aac ! aacparse ! rtpmp4apay pt=96",
        "MP4A-LATM/48000/2 cpresent=0;config=400023203fc0",
        "AAC_LATM",
    ),
    (
        "ac3",
        "AUDIO ! avenc_ac3 ! ac3parse ! rtpac3pay pt=96",
        "ac3/48000/2",
        "AC3",
    ),
    (
        "opus",
        "AUDIO ! opusenc ! rtpopuspay pt=96",
        "opus/48000/2",
        "OPUS",
    ),
    ("l16", "AUDIO ! rtpL16pay pt=96", "L16/48000/2", "L16"),
    (
        "l24",
        "AUDIO ! audioconvert ! rtpL24pay pt=96",
        "L24/48000/2",
        "L24",
    ),
    (
        "mpa",
        "AUDIO ! twolamemp2enc ! mpegaudioparse ! rtpmpapay pt=96",
        "MPA",
        "MPEG_AUDIO",
    ),
    (
        "mpv",
        "VIDEO ! mpeg2enc format=3 bitrate=1000 ! mpegvideoparse ! rtpmpvpay pt=96",
        "MPV",
        "MPEG2",
    ),
    ("klv", "KLV ! rtpklvpay pt=96", "smpte336m/90000", "KLV"),
];

const VIDEO: &str = "videotestsrc is-live=true num-buffers=150 pattern=ball \
     ! video/x-raw,format=I420,width=320,height=180,framerate=25/1";
const AUDIO: &str = "audiotestsrc is-live=true num-buffers=300 samplesperbuffer=960 ! audioconvert \
     ! audio/x-raw,rate=48000,channels=2";

/// Waits until some KLV units of `id` are there: GStreamer paces them at about one a second.
fn await_klv(engine: &Engine, id: &str) {
    let mut last = Value::Null;
    let done = poll(seconds(12), || {
        last = engine.stream(id)?;
        let track = &last["tracks"][0];
        (track["codec"] == "KLV" && track["units"].as_u64() >= Some(10)).then_some(())
    });
    assert!(done.is_some(), "{id}: {last:#}");
    assert_eq!(last["tracks"][0]["units_damaged"], 0, "{last:#}");
}

#[test]
fn every_payload_format_of_gstreamer_is_received_with_reports_of_rtpbin() {
    let test = Alone::begin("rtp-gstreamer");
    let ports = free_ports(GSTREAMER.len(), 1);
    let mut config = String::new();
    let mut pipeline = String::from("-q rtpbin name=r");
    // A universal label, four bytes of BER length and value.
    let label = *b"\x06\x0E\x2B\x34\x02\x0B\x01\x01\x0E\x01\x03\x01\x01\0\0\0";
    let unit = test.folder().join("unit.klv");
    std::fs::write(&unit, [&label[..], b"\x04unit"].concat()).expect("it is writable");
    let klv = format!(
        "multifilesrc location={} loop=true num-buffers=150 do-timestamp=true \
         caps=meta/x-klv,parsed=true ! identity sleep-time=40000",
        unit.display()
    );
    for (at, ((name, chain, plan, _), port)) in GSTREAMER.iter().zip(&ports).enumerate() {
        let _ = writeln!(
            config,
            "[[rtp.sessions]]\nid = \"{name}\"\nport = {port}\npayload_types = {{ 96 = \"{plan}\" }}"
        );
        let chain = chain.replace("VIDEO", VIDEO).replace("AUDIO", AUDIO);
        let chain = chain.replace("KLV", &klv);
        let _ = write!(
            pipeline,
            " {chain} ! r.send_rtp_sink_{at} r.send_rtp_src_{at} ! udpsink host=127.0.0.1 port={port} \
             r.send_rtcp_src_{at} ! udpsink host=127.0.0.1 port={} sync=false async=false",
            port + 1
        );
    }
    let config = test.write("engine.toml", &config).display().to_string();
    let engine = Engine::start_with(&test, &[], &["--config", &config]);
    let sender = Process::start(
        test.folder(),
        "gst-launch",
        "gst-launch-1.0",
        &words(&pipeline),
    );
    for (name, chain, _, codec) in &GSTREAMER {
        if *codec == "KLV" {
            await_klv(&engine, name);
            continue;
        }
        let (video, audio) = if chain.starts_with("VIDEO") {
            (*codec, "")
        } else {
            ("", *codec)
        };
        await_and_check(&engine, name, video, audio, 0.0);
    }
    drop(sender);
}
