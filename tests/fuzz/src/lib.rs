//! What the fuzz targets do, one module each: bytes from a hostile peer go through the public
//! doors of `mirror-srt`, and what must hold afterwards is asserted. libFuzzer drives them
//! (`fuzz_targets/`), and every toolchain's test replays the corpora (`replay.rs`).

pub mod connection;
pub mod drop_request;
pub mod handshake;
mod harness;
pub mod key_material;
pub mod loss_list;
pub mod packet;
pub mod stream_id;

/// A target: its name, which is its corpus's folder, and what it does with an input.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: &[Target] = &[
    ("packet", packet::run),
    ("handshake", handshake::run),
    ("loss_list", loss_list::run),
    ("drop_request", drop_request::run),
    ("key_material", key_material::run),
    ("stream_id", stream_id::run),
    ("connection", connection::run),
];
