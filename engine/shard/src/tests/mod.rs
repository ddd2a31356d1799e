//! Shards over a virtual network, in virtual time, with the real rooms behind them.

mod calls;
mod chaos;
mod configured;
mod encryption;
mod handshakes;
mod hostile;
mod lifecycle;
mod media;
mod meetings;
mod moves;
mod oversize;
mod placement;
mod remote;
mod sources;
mod window;
mod world;
