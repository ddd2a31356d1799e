//! From the command line to what each room is given: configuration and core map, and the
//! shards' part of both.

use std::process::ExitCode;

use mirror_control::config::{DamagedUnits, FrameUnits, OnConflict, online_cores};
use mirror_control::{Config, ConfigErrors, Pinning, PinningSource, Sources};
use mirror_media::av_sync::AvSyncConfig;
use mirror_media::{Damaged, Limits, Units};
use mirror_shard::{PayloadType, RtpConfig, ShardPlacement, ShardsConfig, SrtConfig};
use mirror_stream::{GopConfig, StreamConfig};
use mirror_uring::{ReactorConfig, SocketOptions};
use rustix::rand::{GetRandomFlags, getrandom};
use serde_json::json;

use crate::Failure;
use crate::budget::Budget;
use crate::check;
use crate::cli::{ConfigOptions, PrintOptions};

/// Provided buffers of an ordinary path, and of one where the kernel joins datagrams (D3).
const BUFFER_BYTES: usize = 2048;
const GRO_BUFFER_BYTES: usize = 65_536 + mirror_uring::HEAD_BYTES;
/// Clock rate of the video payload types that can be configured (RFC 2250, 6184, 7798).
const VIDEO_CLOCK_RATE: u32 = 90_000;

/// Configuration and core map, both valid.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) config: Config,
    pub(crate) pinning: Pinning,
}

/// Reads and validates both files. All that is wrong with them is said at once.
pub(crate) fn load(options: &ConfigOptions) -> Result<Settings, Failure> {
    load_with(options, Pinning::load)
}

/// The same for `check`, which says in its table which cores of the map are missing.
fn load_for_check(options: &ConfigOptions) -> Result<Settings, Failure> {
    load_with(options, Pinning::load_unmatched)
}

fn load_with(
    options: &ConfigOptions,
    load_pinning: impl FnOnce(&PinningSource, &[u32]) -> Result<Pinning, ConfigErrors>,
) -> Result<Settings, Failure> {
    let config = load_config(options);
    let source = PinningSource::from_argument(options.pinning.as_deref());
    let pinning = load_pinning(&source, &online_cores());
    match (config, pinning) {
        (Ok(config), Ok(pinning)) => Ok(Settings { config, pinning }),
        (Err(first), Err(second)) => Err(Failure::usage(anyhow::anyhow!("{first}\n{second}"))),
        (Err(errors), Ok(_)) | (Ok(_), Err(errors)) => Err(Failure::usage(errors)),
    }
}

/// Reads and validates the configuration alone: what a reload looks at.
pub(crate) fn load_config(options: &ConfigOptions) -> Result<Config, ConfigErrors> {
    Config::load(&Sources::from_process(
        options.config.clone(),
        options.set.clone(),
    ))
}

impl Settings {
    /// What the shards are given, with secrets of this process from the operating system.
    pub(crate) fn shards(&self) -> Result<ShardsConfig, Failure> {
        let (config, pinning) = (&self.config, &self.pinning);
        let budget = Budget::of(self);
        Ok(ShardsConfig {
            shards: pinning
                .shards
                .iter()
                .map(|shard| ShardPlacement {
                    core: Some(shard.core),
                })
                .collect(),
            srt: config.srt.enabled.then(|| srt(config)),
            rtp: config.rtp.enabled.then(|| rtp(config)),
            rtp_sessions: config
                .rtp
                .sessions
                .iter()
                .map(|session| session.plan.clone())
                .collect(),
            cname: format!("mirror@{}", config.instance),
            sockets: SocketOptions {
                receive_buffer: size(pinning.sockets.receive_buffer),
                gro: pinning.ring.gro,
                steering: pinning.sockets.steering,
                ..SocketOptions::default()
            },
            reactor: self.reactor(),
            pool_bytes_per_shard: size(budget.pool_per_shard),
            pool_bytes_total: size(budget.pool_total),
            huge_pages: pinning.huge_pages,
            policy: match pinning.policy {
                mirror_control::config::Policy::Other => None,
                mirror_control::config::Policy::Fifo(priority) => Some(priority),
            },
            stream: StreamConfig {
                media: config.stream.media,
                limits: Limits {
                    max_frame_size: size(config.frame.max_frame_size),
                    assembly_timeout: config.frame.assembly_timeout,
                    damaged: match config.frame.damaged {
                        DamagedUnits::Deliver => Damaged::Deliver,
                        DamagedUnits::Drop => Damaged::Drop,
                    },
                    units: match config.frame.units {
                        FrameUnits::Access => Units::AccessUnits,
                        FrameUnits::Pes => Units::PesPackets,
                    },
                    tr101290: config.stream.tr101290,
                    ..Limits::default()
                },
                ring_bytes: size(config.buffer.ring_size),
                per_stream_bytes: size(config.memory.per_stream),
                payload_hash: config.diagnostics.payload_hash,
                gop: self.gop(),
                sync: AvSyncConfig {
                    enabled: config.sync.enabled,
                    threshold: config.sync.threshold,
                    correction_rate: config.sync.correction_rate,
                    max_step: config.sync.max_step,
                    max_drift: config.sync.max_drift,
                },
            },
            reconnect_grace: config.stream.reconnect_grace,
            stream_timeout: config.stream.timeout,
            takeover: config.stream.on_conflict == OnConflict::Takeover,
            cookie_key: random()?,
            seed: u64::from_ne_bytes(random()?),
            max_streams: count(config.max_streams),
        })
    }

    /// How groups of pictures are kept.
    fn gop(&self) -> GopConfig {
        let config = &self.config;
        GopConfig {
            keep: config.gop.keep,
            keep_is_set: config.gop.keep_is_set,
            max_frames: config.gop.max_frames,
            max_bytes: size(config.gop.max_bytes),
            max_age: config.gop.max_age,
            keyframe_timeout: config.gop.keyframe_timeout,
        }
    }

    /// Bytes that keeping them may take for one stream, beside its ring.
    pub(crate) fn gop_bytes(&self) -> u64 {
        self.gop().most_bytes() as u64
    }

    /// Options of one shard's ring.
    pub(crate) fn reactor(&self) -> ReactorConfig {
        let ring = &self.pinning.ring;
        let callers = self.config.srt.callers.iter();
        let meetings = callers.filter(|c| c.url.rendezvous.is_some()).count();
        let default = ReactorConfig::default();
        ReactorConfig {
            // Each has a port of its own, and all may come to one shard.
            spare_sockets: default.spare_sockets + meetings,
            min_wait: ring.min_wait,
            busy_poll: ring.busy_poll,
            buffers: ring.buffers,
            buffer_bytes: if ring.gro {
                GRO_BUFFER_BYTES
            } else {
                // Whole cache lines.
                let longest = self.config.rtp.max_packet_size + mirror_uring::HEAD_BYTES;
                BUFFER_BYTES.max(longest.next_multiple_of(64))
            },
            ..default
        }
    }

    /// What `check` holds the host against.
    fn wanted(&self) -> check::Wanted {
        let budget = Budget::of(self);
        check::Wanted {
            shard_cores: self.pinning.shards.iter().map(|s| s.core).collect(),
            shards: self.pinning.shards.clone(),
            control_cores: self.pinning.control_cores.clone(),
            receive_buffer: self.pinning.sockets.receive_buffer,
            reactor: self.reactor(),
            memory: budget.at_start(),
            huge_pages: self.pinning.huge_pages,
            gro: self.pinning.ring.gro,
        }
    }
}

fn srt(config: &Config) -> SrtConfig {
    let srt = &config.srt;
    SrtConfig {
        listen: srt.listen,
        connection: mirror_srt::Config {
            latency: srt.latency,
            max_latency: srt.max_latency,
            flow_window: srt.flow_window,
            payload_size: srt.payload_size,
            peer_idle_timeout: srt.peer_idle_timeout,
            min_version: srt.min_version,
            max_bandwidth: srt.max_bandwidth_bytes(),
            refresh_packets: srt.encryption.refresh_packets,
            announce_packets: srt.encryption.announce_packets,
            // Nothing is advertised where nobody is to encrypt (spec section 7.1).
            advertised_key_length: config.any_passphrase().then_some(srt.encryption.key_length),
            loss_max_ttl: srt.loss_max_ttl,
            ..mirror_srt::Config::default()
        },
        handshakes_per_second: srt.handshakes_per_second,
        max_connections: count(srt.max_connections),
        default_publish: srt.default_mode == mirror_control::config::DefaultMode::Publish,
    }
}

fn rtp(config: &Config) -> RtpConfig {
    let rtp = &config.rtp;
    let mut payload_types = vec![None; 128];
    for (&number, payload) in &rtp.payload_types {
        if let Some(entry) = payload_types.get_mut(usize::from(number)) {
            *entry = Some(PayloadType {
                hint: payload.plan.hint.clone(),
                clock_rate: payload.plan.clock_rate,
            });
        }
    }
    RtpConfig {
        listen: rtp.listen,
        rtcp_listen: rtp.rtcp_listen,
        session: mirror_rtp::Config {
            reorder_packets: rtp.reorder_packets,
            jitter_buffer: rtp.jitter_buffer,
            session_timeout: rtp.session_timeout,
            clock_rate: VIDEO_CLOCK_RATE,
        },
        max_sessions: count(rtp.max_sessions),
        rtcp: rtp.rtcp,
        max_packet_size: rtp.max_packet_size,
        payload_types,
    }
}

/// Sizes of the configuration are validated to be far below the address space.
fn size(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn random<const N: usize>() -> Result<[u8; N], Failure> {
    let mut bytes = [0; N];
    let got = getrandom(&mut bytes, GetRandomFlags::empty())
        .map_err(|error| anyhow::anyhow!("the operating system gives no randomness: {error}"))
        .map_err(Failure::failed)?;
    if got == N {
        Ok(bytes)
    } else {
        Err(Failure::failed(anyhow::anyhow!(
            "the operating system gave {got} random bytes of {N}"
        )))
    }
}

/// `mirror-ingest config`.
pub(crate) fn print_config(options: &PrintOptions) -> Result<ExitCode, Failure> {
    let settings = load(&options.config)?;
    if options.json {
        let mut all = settings.config.to_json();
        if let Some(all) = all.as_object_mut() {
            all.insert("pinning".into(), json!(settings.pinning));
        }
        println!("{all:#}");
    } else {
        print!("{}", settings.config.to_toml());
        println!("\n# The core map in force (pinning.toml):");
        for line in settings.pinning.to_toml().lines() {
            println!("# {line}");
        }
    }
    for warning in settings
        .config
        .warnings
        .iter()
        .chain(&settings.pinning.warnings)
    {
        eprintln!("mirror-ingest: warning: {warning}");
    }
    Ok(ExitCode::SUCCESS)
}

/// `mirror-ingest check`.
pub(crate) fn check(options: &PrintOptions) -> Result<ExitCode, Failure> {
    let settings = load_for_check(&options.config)?;
    let rows = check::rows(&settings.wanted());
    if options.json {
        println!("{:#}", check::as_json(&rows));
    } else {
        println!("{}", check::table(&rows));
    }
    Ok(if check::worst(&rows) == check::Verdict::Fail {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_with_missing_cores_is_a_row_of_check_and_stops_a_run() {
        // <target>/<profile>/deps/<test binary>: what a killed run leaves is the next one's.
        let target = std::env::current_exe().unwrap();
        let folder = target.ancestors().nth(3).unwrap().join("tmp/mirror-daemon");
        std::fs::create_dir_all(&folder).unwrap();
        let map = folder.join("map.toml");
        std::fs::write(&map, "[[shard]]\ncore = 4000\n").unwrap();
        let options = PrintOptions {
            config: ConfigOptions {
                config: None,
                pinning: Some(map.display().to_string()),
                set: Vec::new(),
            },
            json: false,
        };
        assert_eq!(load(&options.config).unwrap_err().code, 2);
        let settings = load_for_check(&options.config).unwrap();
        let rows = check::rows(&settings.wanted());
        let row = rows.iter().find(|row| row.what == "cores").unwrap();
        assert_eq!(row.verdict, check::Verdict::Fail);
        assert!(row.found.contains("4000"), "{}", row.found);
        assert_eq!(check(&options).unwrap(), ExitCode::FAILURE);
        std::fs::remove_file(map).unwrap();
    }
}
