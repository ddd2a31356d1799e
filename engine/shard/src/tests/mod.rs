//! Shards over a virtual network, in virtual time, with the real rooms behind them.
