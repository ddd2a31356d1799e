//! What a file holds, as the engine would have seen it: captures of network traffic, transport
//! streams, elementary streams. The files run through the very same cores as live traffic, in the
//! time that the file itself tells. Sans-IO; called by `mirror-ingest inspect` and by tests.
//!
//! ```text
//! source       bytes of a file, a window at a time
//! capture      pcap and pcapng; the UDP datagrams in them
//! network      which datagram belongs to which SRT connection, RTP source or transport stream
//! srt, rtp     followers: our receivers in the place of the recorded ones
//! gaps         numbers of a sequence that never came
//! recovery     RTP loss that senders repaired
//! sdp          what signalling says of payload types
//! transport    MPEG-TS files
//! census       transport streams by PID
//! elementary   Annex B, OBU, IVF, JPEG XS and KLV files
//! tracks       facts of elementary streams, gathered from their access units
//! findings     what is wrong, in sentences
//! report       what was found, and its JSON
//! ```

#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::panic)]
#![cfg_attr(
    test,
    allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::panic)
)]

pub mod capture;
mod census;
mod digest;
mod elementary;
mod findings;
mod gaps;
mod network;
mod recovery;
pub mod report;
mod rtp;
mod sdp;
mod source;
mod srt;
mod tracks;
mod transport;

use core::time::Duration;

use mirror_media::PayloadHint;
use mirror_media::files::annexb;
use mirror_media::{Codec, Limits};

pub use report::{Kind, Report};
pub use source::Source;

/// What is known besides the file.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Decrypts SRT payloads.
    pub passphrase: Option<String>,
    /// RTP payload types that signalling names: number, what it stands for, clock rate in Hz.
    pub payload_types: Vec<(u8, PayloadHint, u32)>,
    /// Every unit is listed as well.
    pub units: bool,
    /// Packets are listed as well: ACKs and NAKs, RTCP, RTP, the contents of PSI sections.
    pub packets: bool,
    /// How long a PID may be missing before TR 101 290 counts it (1.6), which the standard leaves
    /// to the user; `None`: 5 s.
    pub pid_timeout: Option<Duration>,
}

impl Options {
    /// Takes the payload types over that a session description (SDP, RFC 8866) names.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub fn add_sdp(&mut self, text: &str) -> Result<(), String> {
        self.payload_types.extend(sdp::payload_types(text)?);
        Ok(())
    }
}

/// Bytes of a file's beginning that tell its kind.
const HEAD: usize = 256 << 10;
/// TS packets that must stand in a row.
const TS_PACKETS: usize = 5;

/// What a file that begins with `head` and is called `name` holds.
fn kind_of(name: &str, head: &[u8]) -> Option<Kind> {
    if capture::is_capture(head) {
        return Some(Kind::Pcap);
    }
    if let Some(kind) = elementary::kind_by_magic(head) {
        return Some(kind);
    }
    if is_transport_stream(head) {
        return Some(Kind::MpegTs);
    }
    if let Some(kind) = elementary::av1_by_bits(head) {
        return Some(kind);
    }
    match annexb::detect(head) {
        Some(Codec::H264) => return Some(Kind::H264),
        Some(Codec::H265) => return Some(Kind::H265),
        Some(_) => return Some(Kind::Mpeg2Video),
        None => {}
    }
    // Damaged beyond recognition: the name decides.
    let extension = name.rsplit_once('.').map(|(_, e)| e.to_ascii_lowercase());
    Some(match extension.as_deref()? {
        "ts" | "m2ts" | "mts" | "trp" => Kind::MpegTs,
        "h264" | "264" | "avc" => Kind::H264,
        "h265" | "265" | "hevc" => Kind::H265,
        "m2v" | "mpv" => Kind::Mpeg2Video,
        _ => return None,
    })
}

/// Whether packets of 188, 192 or 204 bytes stand in a row somewhere at the head.
fn is_transport_stream(head: &[u8]) -> bool {
    let sync = |at: usize| head.get(at) == Some(&0x47);
    (0..head.len().min(64 << 10)).any(|at| {
        [188, 192, 204].into_iter().any(|size| {
            let packets = ((head.len() - at) / size).min(TS_PACKETS);
            packets > 1 && sync(at) && (0..packets).all(|n| sync(at + n * size))
        })
    })
}

/// Looks into a file. What is wrong with it stands in the report's errors.
///
/// # Errors
/// When it cannot be read, or is of no known kind.
pub fn inspect(name: &str, source: &dyn Source, options: &Options) -> Result<Report, String> {
    let mut window = source::Window::new(source);
    let head = window.peek(HEAD)?;
    if head.is_empty() {
        return Err("the file is empty".to_owned());
    }
    let kind =
        kind_of(name, head).ok_or("neither a capture nor a media file that is known here")?;
    let mut report = Report::new(name, kind);
    match kind {
        Kind::Pcap => network::inspect(source, options, &mut report)?,
        Kind::MpegTs => transport::inspect(source, options, &mut report)?,
        _ => elementary::inspect(source, options, &mut report)?,
    }
    Ok(report)
}

/// Limits for files: nobody waits for a unit in vain there, and nothing is hurried.
fn limits(options: &Options) -> Limits {
    let mut limits = Limits::default();
    if let Some(timeout) = options.pid_timeout {
        limits.tr101290_limits.pid = timeout;
    }
    limits
}
