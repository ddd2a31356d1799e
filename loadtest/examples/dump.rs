//! Writes some seconds of the generated content to a file, to be looked at with other tools:
//! `cargo run -p mirror-loadtest --example dump -- h264 10000000 4 out.ts`.

use std::io::Write;
use std::sync::Arc;

use mirror_loadtest::content::ts::{DATAGRAM, TsShape, TsStream, TsTemplate};
use mirror_loadtest::content::{VideoCodec, VideoShape};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().collect();
    let [_, codec, bitrate, seconds, file] = args.as_slice() else {
        return Err("usage: dump h264|h265 BITS_PER_SECOND SECONDS FILE".into());
    };
    let codec = if codec == "h265" {
        VideoCodec::H265
    } else {
        VideoCodec::H264
    };
    let video = VideoShape {
        codec,
        width: 1920,
        height: 1080,
        fps_num: 30,
        fps_den: 1,
        gop: 60,
        b_frames: 2,
    };
    let shape = TsShape {
        video,
        bitrate_bps: bitrate.parse()?,
        audio: true,
    };
    let mut stream = TsStream::new(Arc::new(TsTemplate::new(shape)?));
    let mut out = std::io::BufWriter::new(std::fs::File::create(file)?);
    let mut datagram = [0; DATAGRAM];
    let end = seconds.parse::<u64>()? * 1_000_000_000;
    while stream.next_due_ns() < end {
        stream.next(0, &mut datagram);
        out.write_all(&datagram)?;
    }
    Ok(())
}
