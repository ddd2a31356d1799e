//! ffprobe as a second oracle: media made afresh with the encoders of Debian's ffmpeg and
//! GStreamer, and what `inspect` finds in them unit by unit: codec, profile, level, size, rate,
//! format, scan, colour and HDR; number, type, size, PTS and DTS of every access unit, key frames,
//! audio frames. Where ffprobe says something else, a line of [`compare::Allow`] tells why.
//!
//! No encoder of Debian 12 makes field pictures of H.264 (PAFF) or JPEG XS, and neither program
//! muxes AV1 into MPEG-TS: recorded files cover these (`tests/inspect`).

mod compare;
mod live;
mod names;

use std::path::PathBuf;

use compare::Allow;
use mirror_tests::media::QUIET;
use mirror_tests::process::run;
use mirror_tests::{Alone, seconds};

const PICTURE: &str = "-f lavfi -i testsrc2=size=320x180:rate=25:duration=3";
const X264: &str = "-c:v libx264 -preset veryfast -threads 1";
const X265: &str = "-c:v libx265 -preset ultrafast";

/// A file to be made: its name, ffmpeg's arguments, what differs.
type Clip<'a> = (&'a str, String, &'a [Allow]);

fn make(test: &Alone, name: &str, arguments: &str) -> PathBuf {
    let file = test.folder().join(name);
    let path = file.display().to_string();
    let mut args = QUIET.to_vec();
    args.push("-y");
    args.extend(arguments.split_whitespace());
    args.push(&path);
    let (code, output) = run(test.folder(), "make", "ffmpeg", &args, seconds(60));
    assert_eq!(code, Some(0), "ffmpeg cannot make {name}: {output}");
    file
}

/// Makes each file and compares; panics with all that was wrong.
fn check(test: &Alone, clips: &[Clip<'_>]) {
    let wrong: Vec<String> = clips
        .iter()
        .flat_map(|(name, arguments, allow)| {
            let file = make(test, name, arguments);
            compare::compare(test, &file, allow)
        })
        .collect();
    assert!(wrong.is_empty(), "{}\n{}", wrong.len(), wrong.join("\n"));
}

/// x264 with options in its own syntax.
fn h264(name: &'static str, source: &str, x264: &str) -> Clip<'static> {
    (
        name,
        format!("{source} {X264} -x264-params {x264} -f mpegts"),
        &[],
    )
}

/// x265 likewise.
fn h265(name: &'static str, format: &str, x265: &str) -> Clip<'static> {
    let x265 = format!("log-level=error:pools=1:{x265}");
    (
        name,
        format!("{PICTURE} {X265} -pix_fmt {format} -x265-params {x265} -f mpegts"),
        &[Allow::ZeroByte],
    )
}

#[test]
fn interlaced_h264_is_what_ffprobe_finds() {
    let test = Alone::begin("oracle-h264-interlaced");
    let fields = |order: &str| format!("{PICTURE} -vf setfield={order} -flags +ildct+ilme");
    let clips = [
        h264(
            "mbaff-tff.ts",
            &fields("tff"),
            "interlaced=1:tff=1:keyint=25:bframes=3:b-pyramid=normal",
        ),
        h264("mbaff-bff.ts", &fields("bff"), "bff=1:keyint=25:bframes=2"),
        // Fields are allowed, and never used.
        h264("progressive.ts", PICTURE, "fake-interlaced=1:keyint=25"),
        // The same, and each picture says so.
        h264(
            "frames.ts",
            PICTURE,
            "fake-interlaced=1:pic-struct=1:keyint=25",
        ),
    ];
    check(&test, &clips);
}

#[test]
fn h264_with_b_pyramids_open_gops_and_slices_is_what_ffprobe_finds() {
    let test = Alone::begin("oracle-h264-gops");
    let mut clips = vec![
        h264(
            "pyramid.ts",
            PICTURE,
            "bframes=7:b-adapt=0:b-pyramid=normal:scenecut=0:ref=4:keyint=50",
        ),
        h264(
            "strict.ts",
            PICTURE,
            "bframes=5:b-adapt=0:b-pyramid=strict:scenecut=0:keyint=50",
        ),
        h264(
            "open.ts",
            PICTURE,
            "open-gop=1:keyint=25:min-keyint=25:bframes=3:b-adapt=0:scenecut=0",
        ),
        h264("slices.ts", PICTURE, "slices=4:keyint=25:bframes=2"),
        h264(
            "cbr-aud.ts",
            PICTURE,
            "bitrate=1000:vbv-maxrate=1000:vbv-bufsize=1000:nal-hrd=cbr:filler=1:aud=1:keyint=25",
        ),
    ];
    let mut refresh = h264("refresh.ts", PICTURE, "intra-refresh=1:keyint=25:bframes=0");
    refresh.2 = &[Allow::GradualRefresh];
    clips.push(refresh);
    check(&test, &clips);
}

#[test]
fn profiles_rates_and_colours_of_h264_are_what_ffprobe_finds() {
    let test = Alone::begin("oracle-h264-formats");
    let rate = PICTURE.replace("rate=25", "rate=60000/1001");
    let colour = "-color_primaries bt709 -color_trc bt709 -colorspace bt709 -color_range pc";
    let clips = [
        h264(
            "5994.ts",
            &format!("{rate} {colour}"),
            "keyint=60:bframes=2",
        ),
        h264(
            "baseline.ts",
            &format!("{PICTURE} -profile:v baseline"),
            "keyint=25",
        ),
        h264(
            "main.ts",
            &format!("{PICTURE} -profile:v main"),
            "keyint=25:weightp=2:bframes=2",
        ),
        h264(
            "422-10.ts",
            &format!("{PICTURE} -pix_fmt yuv422p10le"),
            "keyint=25:bframes=2",
        ),
        h264(
            "444.ts",
            &format!("{PICTURE} -pix_fmt yuv444p -qp 0"),
            "keyint=25",
        ),
    ];
    check(&test, &clips);
}

#[test]
fn open_gops_leading_pictures_and_pyramids_of_hevc_are_what_ffprobe_finds() {
    let test = Alone::begin("oracle-hevc-gops");
    let clips = [
        // RASL.
        h265(
            "open.ts",
            "yuv420p",
            "keyint=25:min-keyint=25:open-gop=1:bframes=4:b-adapt=0:scenecut=0:b-pyramid=1",
        ),
        h265(
            "radl.ts",
            "yuv420p",
            "keyint=25:min-keyint=25:open-gop=0:radl=2:bframes=3:b-adapt=0:scenecut=0",
        ),
        h265(
            "pyramid.ts",
            "yuv420p",
            "keyint=50:bframes=8:rc-lookahead=20:b-adapt=0:b-pyramid=1:scenecut=0",
        ),
        h265(
            "layers.ts",
            "yuv420p",
            "keyint=25:temporal-layers=2:bframes=3:b-adapt=0:scenecut=0",
        ),
        h265(
            "refresh.ts",
            "yuv420p",
            "keyint=25:intra-refresh=1:bframes=0",
        ),
        h265(
            "slices.ts",
            "yuv420p",
            "keyint=25:slices=2:bframes=2:aud=1:hrd=1:vbv-maxrate=1000:vbv-bufsize=1000",
        ),
        // Each field is a picture.
        h265("fields.ts", "yuv420p", "keyint=50:interlace=tff:bframes=2"),
    ];
    check(&test, &clips);
}

/// HDR10: BT.2020, PQ, mastering display, content light level.
const HDR10: &str = "keyint=25:bframes=2:hdr10=1:repeat-headers=1:colorprim=bt2020:\
     transfer=smpte2084:colormatrix=bt2020nc:range=limited:\
     master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50):\
     max-cll=1000,400";

#[test]
fn hdr_and_deep_formats_of_hevc_are_what_ffprobe_finds() {
    let test = Alone::begin("oracle-hevc-formats");
    let hlg = "keyint=25:bframes=2:colorprim=bt2020:colormatrix=bt2020nc";
    let mut clips = vec![
        h265("hdr10.ts", "yuv420p10le", HDR10),
        h265(
            "hlg.ts",
            "yuv420p10le",
            &format!("{hlg}:transfer=arib-std-b67"),
        ),
        // Told to those who know it only.
        h265(
            "hlg-sei.ts",
            "yuv420p10le",
            &format!("{hlg}:transfer=bt2020-10:atc-sei=18"),
        ),
        h265(
            "high-tier.ts",
            "yuv420p10le",
            "keyint=25:bframes=2:level-idc=5.1:high-tier=1",
        ),
    ];
    for (name, format) in [("422-10.ts", "yuv422p10le"), ("444-12.ts", "yuv444p12le")] {
        let mut clip = h265(name, format, "keyint=25:bframes=2");
        clip.2 = &[Allow::ZeroByte, Allow::RangeExtension];
        clips.push(clip);
    }
    check(&test, &clips);
}

#[test]
fn mpeg2_video_is_what_ffprobe_finds() {
    let test = Alone::begin("oracle-mpeg2");
    let source = |size: &str, rate: &str, order: &str| {
        format!(
            "-f lavfi -i testsrc2=size={size}:rate={rate}:duration=2 -vf setfield={order} \
             -c:v mpeg2video -bf 2 -g 12 -b:v 4M"
        )
    };
    let fields = "-flags +ildct+ilme";
    let colour = "-color_primaries bt470bg -color_trc gamma28 -colorspace bt470bg";
    let clips: [Clip<'_>; 4] = [
        (
            "tff.ts",
            format!(
                "{} {fields} -top 1 -f mpegts",
                source("720x576", "25", "tff")
            ),
            &[],
        ),
        (
            "bff.ts",
            format!(
                "{} {fields} -top 0 -f mpegts",
                source("720x480", "30000/1001", "bff")
            ),
            &[],
        ),
        (
            "422.ts",
            format!(
                "{} -pix_fmt yuv422p -profile:v 0 -level:v 5 {colour} -f mpegts",
                source("720x576", "25", "prog")
            ),
            &[],
        ),
        (
            "progressive.ts",
            format!("{} -f mpegts", source("320x180", "50", "prog")),
            &[],
        ),
    ];
    check(&test, &clips);
}

#[test]
fn av1_is_what_ffprobe_finds() {
    let test = Alone::begin("oracle-av1");
    let svt = "-c:v libsvtav1 -preset 10 -g 25";
    let hdr = "-pix_fmt yuv420p10le -color_primaries bt2020 -color_trc smpte2084 \
               -colorspace bt2020nc -svtav1-params enable-hdr=1:\
               mastering-display=G(0.265,0.69)B(0.15,0.06)R(0.68,0.32)WP(0.3127,0.329)\
               L(1000.0,0.005):content-light=1000,400";
    let clips: [Clip<'_>; 4] = [
        (
            "svt.ivf",
            format!("{PICTURE} {svt}"),
            &[Allow::ContainerRate],
        ),
        ("svt.obu", format!("{PICTURE} {svt}"), &[Allow::GuessedRate]),
        (
            "hdr.ivf",
            format!("{PICTURE} {svt} {hdr}"),
            &[Allow::ContainerRate],
        ),
        (
            "aom.ivf",
            format!("{PICTURE} -c:v libaom-av1 -cpu-used 8 -usage realtime -g 25"),
            &[Allow::ContainerRate],
        ),
    ];
    check(&test, &clips);
}

/// Seven audio tracks beside video: codec, channels and rate differ.
fn many_tracks() -> String {
    let mut make = format!(
        "{PICTURE} -f lavfi -i sine=frequency=440:sample_rate=48000:duration=3 -map 0 \
         {X264} -g 25 -metadata:s:a:0 language=deu -metadata:s:a:1 language=eng"
    );
    let tracks = [
        ("aac", 2, 48_000),
        ("ac3", 6, 48_000),
        ("mp2", 2, 48_000),
        ("libopus", 2, 48_000),
        ("eac3", 6, 48_000),
        ("libmp3lame", 1, 44_100),
        ("aac", 1, 44_100),
    ];
    for (n, (codec, channels, rate)) in tracks.iter().enumerate() {
        make += &format!(" -map 1 -c:a:{n} {codec} -ac:a:{n} {channels} -ar:a:{n} {rate}");
    }
    make + " -f mpegts"
}

#[test]
fn many_audio_tracks_are_what_ffprobe_finds() {
    let test = Alone::begin("oracle-audio");
    let latm = format!(
        "{PICTURE} -f lavfi -i sine=frequency=440:sample_rate=48000:duration=3 {X264} -g 25 \
         -c:a aac -ac 2 -mpegts_flags latm -f mpegts"
    );
    let clips: [Clip<'_>; 2] = [
        (
            "many.ts",
            many_tracks(),
            &[Allow::AudioLayer, Allow::RoundedDuration],
        ),
        ("latm.ts", latm, &[]),
    ];
    check(&test, &clips);
}

/// 1920×1080 at 50 Mb/s, filled up where the picture needs less.
const FIFTY: &str = "-f lavfi -i testsrc2=size=1920x1080:rate=25:duration=DURATION,noise=alls=60:allf=t \
     -c:v libx264 -preset ultrafast -g 25 -b:v 50M -minrate 50M -maxrate 50M -bufsize 10M \
     -x264-params nal-hrd=cbr:filler=1 -muxrate 55M -f mpegts";

#[test]
fn a_transport_stream_of_50_megabits_a_second_is_what_ffprobe_finds() {
    let test = Alone::begin("oracle-50");
    let clips: [Clip<'_>; 1] = [("fifty.ts", FIFTY.replace("DURATION", "1.2"), &[])];
    check(&test, &clips);
}

const GST_VIDEO: &str = "videotestsrc num-buffers=75 pattern=ball \
     ! video/x-raw,format=I420,width=320,height=180,framerate=25/1";
const GST_AUDIO: &str = "audiotestsrc num-buffers=100 samplesperbuffer=960 ! audioconvert \
     ! audio/x-raw,rate=48000,channels=2";

#[test]
fn media_of_gstreamer_is_what_ffprobe_finds() {
    let test = Alone::begin("oracle-gstreamer");
    let x264 = "x264enc speed-preset=veryfast key-int-max=25";
    let fields = format!("{GST_VIDEO},interlace-mode=interleaved,field-order=top-field-first");
    let clips: [(&str, String, &[Allow]); 9] = [
        (
            "interlaced.ts",
            format!("{fields} ! {x264} interlaced=true bframes=2 ! h264parse ! mpegtsmux"),
            &[],
        ),
        (
            "b.ts",
            format!("{GST_VIDEO} ! {x264} bframes=3 b-pyramid=true ! mpegtsmux"),
            &[],
        ),
        (
            "refresh.ts",
            format!("{GST_VIDEO} ! {x264} intra-refresh=true ! mpegtsmux"),
            &[Allow::GradualRefresh],
        ),
        (
            "h265.ts",
            format!(
                "{GST_VIDEO} ! x265enc speed-preset=ultrafast key-int-max=25 ! h265parse ! mpegtsmux"
            ),
            &[Allow::ZeroByte],
        ),
        (
            "av1.obu",
            format!(
                "{GST_VIDEO} ! av1enc cpu-used=8 usage-profile=realtime keyframe-max-dist=25 \
                 ! av1parse ! video/x-av1,stream-format=obu-stream,alignment=tu"
            ),
            &[Allow::GuessedRate],
        ),
        (
            "aac.ts",
            format!("{GST_AUDIO} ! avenc_aac ! aacparse ! mpegtsmux"),
            &[],
        ),
        (
            "ac3.ts",
            format!("{GST_AUDIO} ! avenc_ac3 ! ac3parse ! mpegtsmux"),
            &[],
        ),
        (
            "mp2.ts",
            format!("{GST_AUDIO} ! twolamemp2enc ! mpegaudioparse ! mpegtsmux"),
            &[Allow::AudioLayer],
        ),
        (
            "opus.ts",
            format!("{GST_AUDIO} ! opusenc ! opusparse ! mpegtsmux"),
            &[],
        ),
    ];
    let mut wrong = Vec::new();
    for (name, pipeline, allow) in &clips {
        let file = test.folder().join(name);
        let pipeline = format!("-q {pipeline} ! filesink location={}", file.display());
        let args: Vec<&str> = pipeline.split_whitespace().collect();
        let (code, output) = run(test.folder(), "make", "gst-launch-1.0", &args, seconds(60));
        assert_eq!(code, Some(0), "GStreamer cannot make {name}: {output}");
        wrong.extend(compare::compare(&test, &file, allow));
    }
    assert!(wrong.is_empty(), "{}\n{}", wrong.len(), wrong.join("\n"));
}
