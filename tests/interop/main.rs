//! The release binary against the programs people use with it: ffmpeg, srt-live-transmit,
//! GStreamer and Redis. Each test starts its own engine on free loopback ports and has the
//! machine to itself. `scripts/test` installs the programs and builds the binaries.

mod callers;
mod drain;
mod encoders;
mod hostile;
mod independent;
mod jumbo;
mod lifecycle;
mod matrix;
mod observe;
mod oracle;
mod payloads;
mod peers;
mod placement;
mod refusals;
mod registry;
mod rendezvous;
mod repair;
mod rtcp;
mod sessions;
mod storm;
mod timelines;
