//! The load generator: paced, stamped SRT and RTP senders, the comparison of what was sent with
//! what the engine says it received, the benchmark against the raw-socket floor, and the
//! bad-input flood. The binary `mirror-loadtest` is a thin shell around [`cli::main`].
//!
//! The content ([`content`]) is made by our own encoder-shaped generator, so that the tool needs
//! nothing but itself; tests of other rooms may use it as a source of valid MPEG-TS and RTP.

pub mod api;
pub mod bench;
pub mod cli;
pub mod content;
pub mod flood;
pub mod generator;
pub mod html;
pub mod impairment;
pub mod listen;
pub mod pacer;
pub mod process;
pub mod relay;
pub mod report;
pub mod run;
pub mod scenario;
pub mod sender;
pub mod units;
pub mod wire;
