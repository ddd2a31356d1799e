//! What the fuzz targets do, one module each: bytes from a hostile peer go through the public
//! doors of `mirror-srt`, `mirror-rtp`, `mirror-media` and `mirror-inspect`, and what must hold
//! afterwards is asserted. libFuzzer drives them (`fuzz_targets/`), and every toolchain's test replays the
//! corpora (`replay.rs`).

pub mod audio;
pub mod av1;
pub mod bitstream;
pub mod capture;
pub mod connection;
pub mod depacketise;
pub mod detect;
pub mod drop_request;
pub mod handshake;
mod harness;
pub mod jpegxs;
pub mod key_material;
pub mod loss_list;
mod media_harness;
pub mod packet;
pub mod rendezvous;
pub mod round_trip;
pub mod rtcp;
pub mod rtp_header;
pub mod rtp_session;
pub mod sdp;
pub mod stream_id;
pub mod transport_stream;
mod ts_writer;

/// A target: its name, which is its corpus's folder, and what it does with an input.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: &[Target] = &[
    ("packet", packet::run),
    ("handshake", handshake::run),
    ("rendezvous", rendezvous::run),
    ("loss_list", loss_list::run),
    ("drop_request", drop_request::run),
    ("key_material", key_material::run),
    ("stream_id", stream_id::run),
    ("connection", connection::run),
    ("rtp_header", rtp_header::run),
    ("rtcp", rtcp::run),
    ("rtp_session", rtp_session::run),
    ("sdp", sdp::run),
    ("capture", capture::run),
    ("transport_stream", transport_stream::run),
    ("h264", bitstream::h264),
    ("h265", bitstream::h265),
    ("mpeg2", bitstream::mpeg2),
    ("av1", av1::run),
    ("jpegxs", jpegxs::run),
    ("depacketise", depacketise::run),
    ("audio", audio::run),
    ("detect", detect::run),
    ("round_trip", round_trip::run),
];
