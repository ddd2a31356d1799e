//! Shards over drivers that the caller brings: a virtual network instead of sockets. Simulations
//! and benchmarks begin here; production begins in [`crate::launch()`].

use std::sync::Arc;

use crossbeam_channel::Sender;
use mirror_base::ShardId;
use mirror_stream::report::{Event, SharedDirectory};
use mirror_uring::ChunkPool;

use crate::config::ShardsConfig;
use crate::driver::Driver;
use crate::mailbox::Mailboxes;
use crate::shard::{Shard, ShardParts};

/// One shard for each driver, in order, none of which runs yet: the caller turns them. A shard
/// reads its mail when its driver says that it was woken, and once a second.
///
/// # Errors
/// Packet memory could not be had.
pub fn assemble<D: Driver>(
    drivers: Vec<D>,
    config: ShardsConfig,
    directory: &SharedDirectory,
    events: &Sender<Event>,
) -> std::io::Result<(Vec<Shard<D>>, Mailboxes)> {
    let (mailboxes, mails) = Mailboxes::new(drivers.len());
    let config = Arc::new(config);
    let shards = drivers.into_iter().zip(mails).enumerate();
    let shards = shards.map(|(index, (driver, mail))| {
        let parts = ShardParts {
            id: ShardId(index as u16),
            config: config.clone(),
            directory: directory.clone(),
            mailboxes: mailboxes.clone(),
            mail,
            events: events.clone(),
            pool: ChunkPool::new(config.pool_bytes_per_shard, config.huge_pages)?,
        };
        Ok(Shard::new(driver, parts))
    });
    Ok((shards.collect::<std::io::Result<_>>()?, mailboxes))
}
