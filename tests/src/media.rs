//! Senders and media files: ffmpeg, srt-live-transmit, GStreamer, and what ffprobe says.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::{Process, run};
use crate::{Alone, seconds, target_dir};

/// Arguments common to every ffmpeg of the tests.
pub const QUIET: &[&str] = &["-hide_banner", "-nostdin", "-loglevel", "warning"];

/// Starts ffmpeg.
pub fn ffmpeg(test: &Alone, name: &str, args: &[&str]) -> Process {
    let all: Vec<&str> = QUIET.iter().chain(args).copied().collect();
    Process::start(test.folder(), name, "ffmpeg", &all)
}

/// A live source: 1280×720 at 30 frames a second.
pub const LIVE_SOURCE: &[&str] = &["-re", "-f", "lavfi", "-i", "testsrc2=size=1280x720:rate=30"];

/// A media file that is made once and kept in the target folder.
///
/// # Panics
/// If ffmpeg cannot make it.
pub fn clip(test: &Alone, name: &str, make: &[&str]) -> PathBuf {
    let folder = target_dir().join("interop").join("media");
    fs::create_dir_all(&folder).expect("the target folder is writable");
    let path = folder.join(name);
    if !path.is_file() {
        let half_done = folder.join(format!("part-{name}"));
        let half = half_done.display().to_string();
        let args: Vec<&str> = QUIET
            .iter()
            .copied()
            .chain(["-y"])
            .chain(make.iter().copied())
            .chain([half.as_str()])
            .collect();
        let (code, output) = run(test.folder(), "make-clip", "ffmpeg", &args, seconds(60));
        assert_eq!(code, Some(0), "ffmpeg cannot make {name}: {output}");
        fs::rename(&half_done, &path).expect("the file can be renamed");
    }
    path
}

/// Five seconds of H.264 with B frames, 640×360 at 30 frames a second, in MPEG-TS.
pub fn clip_h264(test: &Alone) -> PathBuf {
    let make = "-f lavfi -i testsrc2=size=640x360:rate=30:duration=5 -c:v libx264 -preset veryfast \
                -bf 2 -g 30 -sc_threshold 0 -b:v 2M -maxrate 2M -bufsize 1M -f mpegts";
    clip(
        test,
        "h264-5s.ts",
        &make.split_whitespace().collect::<Vec<_>>(),
    )
}

/// Three seconds of H.265, 640×360 at 30 frames a second, in MPEG-TS.
pub fn clip_h265(test: &Alone) -> PathBuf {
    let make = "-f lavfi -i testsrc2=size=640x360:rate=30:duration=3 -c:v libx265 -preset ultrafast \
                -x265-params log-level=error:keyint=30:bframes=2:scenecut=0 -b:v 1M -f mpegts";
    clip(
        test,
        "h265-3s.ts",
        &make.split_whitespace().collect::<Vec<_>>(),
    )
}

/// Sends a file over and over at its own pace; cheap, since nothing is encoded.
pub fn loop_file(test: &Alone, name: &str, file: &Path, format: &str, url: &str) -> Process {
    let file = file.display().to_string();
    let args = [
        "-re",
        "-stream_loop",
        "-1",
        "-i",
        &file,
        "-map",
        "0",
        "-c",
        "copy",
        "-f",
        format,
        url,
    ];
    ffmpeg(test, name, &args)
}

/// Sends a file once at its own pace.
pub fn send_file(test: &Alone, name: &str, file: &Path, url: &str) -> Process {
    let file = file.display().to_string();
    ffmpeg(
        test,
        name,
        &["-re", "-i", &file, "-c", "copy", "-f", "mpegts", url],
    )
}

/// ffmpeg paces a file into the standard input of `program`, and some null packets after it:
/// what a program that sends whole blocks only leaves behind at the end is of no value then.
/// Both processes are returned, the reader first.
///
/// # Panics
/// If one cannot be started.
pub fn pipe_file(
    test: &Alone,
    name: &str,
    file: &Path,
    program: &str,
    args: &[&str],
) -> (Process, Process) {
    let mut null_packet = vec![0x47, 0x1F, 0xFF, 0x10];
    null_packet.resize(188, 0xFF);
    let nulls = test.folder().join("nulls.ts");
    fs::write(&nulls, null_packet.repeat(16)).expect("the test's folder is writable");
    let script =
        "ffmpeg -nostdin -loglevel error -re -i \"$1\" -c copy -f mpegts pipe:1 && cat \"$2\"";
    let mut source = Command::new("sh");
    source.args(["-c", script, "sh"]).arg(file).arg(&nulls);
    let (source, pipe) = Process::start_piped(test.folder(), "feeder", source);
    let mut command = Command::new(program);
    command.args(args);
    let reader = Process::start_fed(test.folder(), name, command, pipe);
    (reader, source)
}

/// What ffprobe counts in a file's first video stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Counts {
    /// Frames.
    pub frames: u64,
    /// Key frames.
    pub key_frames: u64,
}

/// Counts frames and key frames with ffprobe.
///
/// # Panics
/// If ffprobe fails.
pub fn probe(test: &Alone, file: &Path) -> Counts {
    let file = file.display().to_string();
    let args = [
        "-v",
        "error",
        "-select_streams",
        "v:0",
        "-show_entries",
        "packet=flags",
        "-of",
        "csv=p=0",
        &file,
    ];
    let (code, output) = run(test.folder(), "ffprobe", "ffprobe", &args, seconds(30));
    assert_eq!(code, Some(0), "ffprobe: {output}");
    let flags: Vec<&str> = output.lines().filter(|l| !l.trim().is_empty()).collect();
    Counts {
        frames: flags.len() as u64,
        key_frames: flags.iter().filter(|f| f.contains('K')).count() as u64,
    }
}
