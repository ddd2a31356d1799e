//! The memory budget that follows from configuration and core map (design, section 5): printed
//! at the start, and held against what the host can give.

use std::fmt;
use std::fs;

use crate::setup::Settings;

const MIB: u64 = 1 << 20;
/// What the kernel grants of receive buffer for what was asked (`man 7 socket`).
const GRANTED: u64 = 2;
/// UDP ports of the engine: SRT, RTP, RTCP.
const SRT_SOCKETS: u64 = 1;
const RTP_SOCKETS: u64 = 2;

/// Bytes that the engine takes, and may come to take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Budget {
    /// Shards.
    pub(crate) shards: u64,
    /// Packet memory of one shard, set aside at the start.
    pub(crate) pool_per_shard: u64,
    /// Packet memory of all shards that may ever be taken.
    pub(crate) pool_total: u64,
    /// Rings and their receive buffers, all shards.
    pub(crate) rings: u64,
    /// Receive buffers of the sockets when they are full; the kernel takes them as datagrams wait.
    pub(crate) sockets: u64,
    /// Access units being assembled, one of the greatest size for each stream.
    pub(crate) frames: u64,
    /// Places of the units of kept groups of pictures, all streams. What they hold lies in the
    /// packets' memory.
    pub(crate) kept_units: u64,
}

impl Budget {
    pub(crate) fn of(settings: &Settings) -> Self {
        let (config, pinning) = (&settings.config, &settings.pinning);
        let shards = (pinning.shards.len() as u64).max(1);
        let buffer = &config.buffer;
        // A window holds what arrives in the latency; half as much again for bursts, and the
        // slots' own overhead (D2).
        let window =
            u128::from(buffer.max_bitrate_hint) / 8 * config.srt.latency.as_millis() / 1000;
        let per_stream = buffer.ring_size + u64::try_from(window * 2).unwrap_or(u64::MAX / 2);
        let wanted = per_stream.saturating_mul(buffer.pool_streams as u64);
        let pool_total = config.memory.total;
        let ring = settings.reactor();
        let buffers = u64::from(ring.buffers) * ring.buffer_bytes as u64;
        let sockets = if config.srt.enabled { SRT_SOCKETS } else { 0 }
            + if config.rtp.enabled { RTP_SOCKETS } else { 0 };
        let sessions = config.rtp.sessions.iter();
        let ports: u64 = sessions.map(|s| s.plan.ports().count() as u64).sum();
        Budget {
            shards,
            pool_per_shard: wanted.min(pool_total) / shards,
            pool_total,
            rings: shards * (buffers + ring.memlock_bytes()),
            sockets: (shards * sockets + ports) * pinning.sockets.receive_buffer * GRANTED,
            frames: (config.max_streams as u64).saturating_mul(config.frame.max_frame_size),
            kept_units: (config.max_streams as u64).saturating_mul(settings.gop_bytes()),
        }
    }

    /// What is taken before the first datagram.
    pub(crate) const fn at_start(&self) -> u64 {
        self.pool_per_shard * self.shards + self.rings
    }

    /// Refuses what the host cannot give at the start; `Some` says what it could not give later.
    pub(crate) fn against_host(&self) -> Result<Option<String>, String> {
        let Some(available) = available() else {
            return Ok(None);
        };
        if self.at_start() > available {
            return Err(format!(
                "{} MiB of memory are needed at the start, the host has {} MiB available: lower \
                 buffer.pool_streams, buffer.ring_size or buffer.max_bitrate_hint",
                self.at_start() / MIB,
                available / MIB
            ));
        }
        let most = self.pool_total + self.rings + self.sockets + self.kept_units;
        Ok((most > available).then(|| {
            format!(
                "memory.total, full socket buffers and kept units come to {} MiB, the host has {} MiB \
                 available: streams may meet the end of memory before their limits",
                most / MIB,
                available / MIB
            )
        }))
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "packets {} MiB set aside ({} MiB a shard), {} MiB at the most; rings {} MiB; socket \
             buffers up to {} MiB; frames in assembly up to {} MiB, kept units up to {} MiB",
            self.pool_per_shard * self.shards / MIB,
            self.pool_per_shard / MIB,
            self.pool_total / MIB,
            self.rings.div_ceil(MIB),
            self.sockets / MIB,
            self.frames / MIB,
            self.kept_units.div_ceil(MIB)
        )
    }
}

/// Bytes that this process could take now: of the host, and of its control group.
pub(crate) fn available() -> Option<u64> {
    let host = meminfo("MemAvailable").map(|kib| kib * 1024);
    let number = |path: &str| -> Option<u64> { fs::read_to_string(path).ok()?.trim().parse().ok() };
    // "max" is no number: no limit. Version 2 shows a process its own group here when it has a
    // namespace of its own, as in a container.
    let group = number("/sys/fs/cgroup/memory.max")
        .map(|max| max.saturating_sub(number("/sys/fs/cgroup/memory.current").unwrap_or(0)));
    match (host, group) {
        (Some(host), Some(group)) => Some(host.min(group)),
        (host, group) => host.or(group),
    }
}

/// A line of /proc/meminfo, in its own unit (KiB, or pages).
pub(crate) fn meminfo(key: &str) -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::ConfigOptions;

    fn budget(set: &[&str]) -> Budget {
        let options = ConfigOptions {
            config: None,
            pinning: None,
            set: set.iter().map(|s| (*s).to_owned()).collect(),
        };
        let settings = crate::setup::load(&options).map_err(|f| f.error).unwrap();
        Budget::of(&settings)
    }

    #[test]
    fn the_defaults_hold_thirty_streams_of_their_hint() {
        let b = budget(&[]);
        // 4 MiB of ring, and twice 120 ms of 60 Mb/s.
        let wanted = 30 * ((4 << 20) + 2 * 900_000);
        assert_eq!(b.pool_per_shard, wanted / b.shards);
        assert_eq!(b.pool_total, 8 << 30);
        assert!(b.to_string().contains("171 MiB set aside"), "{b}");
        // Eight units to each of 300 pictures.
        let unit = size_of::<mirror_media::AccessUnit>() as u64;
        assert_eq!(b.kept_units, 25 * 300 * 8 * unit);
    }

    #[test]
    fn memory_total_bounds_what_is_set_aside() {
        let b = budget(&["memory.total=64MiB", "memory.per_stream=64MiB"]);
        assert_eq!(b.pool_per_shard * b.shards, 64 << 20);
    }

    #[test]
    fn what_no_host_has_is_refused_with_the_keys_to_lower() {
        let mut b = budget(&[]);
        assert_eq!(b.against_host().map(drop), Ok(()));
        b.pool_per_shard = 1 << 50;
        let said = b.against_host().unwrap_err();
        assert!(said.contains("buffer.pool_streams"), "{said}");
        b = budget(&[]);
        b.pool_total = 1 << 50;
        assert!(b.against_host().unwrap().is_some());
    }
}
