//! Shards over a virtual network, in virtual time, with the real rooms behind them.

#[cfg(any())]
mod lifecycle;
#[cfg(any())]
mod placement;
mod sources;
mod world;
