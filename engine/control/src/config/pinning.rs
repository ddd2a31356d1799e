//! The core map (`pinning.toml`, product contract, section 3): which thread runs where, and the
//! dials of the rings and sockets that go with it. Read by the daemon before anything is pinned.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::error::{ConfigErrors, ErrorList};
use super::reader::{Section, text};
use super::tree::{self, Node, Origin, Table, Value};
use super::value::{ser_duration, ser_size};

/// What the map is where the file says nothing.
const DEFAULTS: &str = r#"
[ring]
min_wait = "500us"
buffers = 256
gro = false
busy_poll = "0s"
[sockets]
receive_buffer = "16MiB"
steering = true
[memory]
huge_pages = false
[scheduling]
policy = "other"
mlock = false
"#;

/// Where the core map comes from.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum PinningSource {
    /// One shard per core but one, at least one; the defaults for the rest.
    #[default]
    Auto,
    /// `--pinning FILE`.
    File(PathBuf),
}

impl PinningSource {
    /// As the command line gives it: a file, "auto", or nothing (auto).
    pub fn from_argument(argument: Option<&str>) -> Self {
        match argument {
            None | Some("auto") => PinningSource::Auto,
            Some(path) => PinningSource::File(PathBuf::from(path)),
        }
    }
}

/// The effective core map.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Pinning {
    /// Cores of the control side; empty: not pinned.
    pub control_cores: Vec<u32>,
    /// One entry per shard, in the order of their numbers; at least one.
    pub shards: Vec<ShardPin>,
    /// `[ring]`.
    pub ring: RingPinning,
    /// `[sockets]`.
    pub sockets: SocketPinning,
    /// Packet memory from huge pages.
    pub huge_pages: bool,
    /// Scheduling class of the shards.
    pub policy: Policy,
    /// Lock all memory.
    pub mlock: bool,
    /// Things that are allowed but look like a mistake; for the log.
    #[serde(skip)]
    pub warnings: Vec<String>,
}

/// `[[shard]]`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ShardPin {
    /// The core.
    pub core: u32,
    /// Where its memory should lie.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub numa_node: Option<u32>,
    /// The network interface that feeds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nic: Option<String>,
    /// The receive queue of that interface.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<u32>,
}

/// `[ring]`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RingPinning {
    /// Wakes are coalesced for so long (D1).
    #[serde(serialize_with = "ser_duration")]
    pub min_wait: Duration,
    /// Receive buffers (D2).
    pub buffers: u16,
    /// UDP_GRO (D3).
    pub gro: bool,
    /// Busy polling of the NIC; zero: none.
    #[serde(serialize_with = "ser_duration")]
    pub busy_poll: Duration,
}

/// `[sockets]`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SocketPinning {
    /// SO_RCVBUF to ask for, bytes (D7).
    #[serde(serialize_with = "ser_size")]
    pub receive_buffer: u64,
    /// Classic-BPF steering (D4).
    pub steering: bool,
}

/// Scheduling class.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// SCHED_OTHER.
    Other,
    /// SCHED_FIFO with this priority, 1 to 99.
    Fifo(u8),
}

/// The cores that this process may run on, in order.
pub fn online_cores() -> Vec<u32> {
    let count = u32::try_from(rustix::thread::CpuSet::MAX_CPU).unwrap_or(1024);
    let cores: Vec<u32> = rustix::thread::sched_getaffinity(None)
        .map(|set| {
            (0..count)
                .filter(|&core| set.is_set(core as usize))
                .collect()
        })
        .unwrap_or_default();
    if cores.is_empty() { vec![0] } else { cores }
}

/// The cores there are, and whether a map may name others.
#[derive(Clone, Copy)]
struct Cores<'a> {
    online: &'a [u32],
    others: bool,
}

impl Cores<'_> {
    fn may_be_named(self, core: u32) -> bool {
        self.others || self.online.contains(&core)
    }
}

impl Pinning {
    /// Reads and validates the map against the cores that are online ([`online_cores`]).
    pub fn load(source: &PinningSource, online: &[u32]) -> Result<Pinning, ConfigErrors> {
        let others = false;
        Self::load_with(source, Cores { online, others })
    }

    /// Reads the map and validates all but whether its cores are online: for those who say
    /// themselves what is missing.
    pub fn load_unmatched(source: &PinningSource, online: &[u32]) -> Result<Pinning, ConfigErrors> {
        let others = true;
        Self::load_with(source, Cores { online, others })
    }

    fn load_with(source: &PinningSource, cores: Cores<'_>) -> Result<Pinning, ConfigErrors> {
        let mut errors = ErrorList::default();
        let mut root = tree::parse("pinning defaults", DEFAULTS, &mut errors);
        let mut name: Arc<str> = Arc::from("pinning defaults");
        if let PinningSource::File(path) = source {
            name = Arc::from(path.display().to_string().as_str());
            tree::overlay(&mut root, super::read_file(path, &mut errors));
        }
        let pinning = read(root, &name, cores, &mut errors);
        errors.finish(pinning)
    }

    /// The map as TOML.
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(self).unwrap_or_else(|e| format!("# cannot be written: {e}\n"))
    }
}

fn read(root: Table, name: &Arc<str>, cores: Cores<'_>, errors: &mut ErrorList) -> Pinning {
    let mut s = Section::root(root, Origin::File(name.clone(), 1), errors);
    let shard_node = s.peek("shard");
    let control_cores = s.section("control", |c| control(c, cores));
    let shards = s.tables("shard", |shard| shard_pin(shard, cores));
    let count = s.section("shards", shard_count);
    let ring = s.section("ring", ring);
    let sockets = s.section("sockets", |c| {
        let sockets = SocketPinning {
            receive_buffer: c.size("receive_buffer", 64 << 10..=1 << 30),
            steering: c.boolean("steering"),
        };
        c.finish(&[]);
        sockets
    });
    let huge_pages = s.section("memory", |c| {
        let huge_pages = c.boolean("huge_pages");
        c.finish(&[]);
        huge_pages
    });
    let (policy, mlock) = s.section("scheduling", |c| {
        let policy = c.parsed(
            "policy",
            "must be \"other\", or \"fifo 1\" to \"fifo 99\"",
            parse_policy,
        );
        let mlock = c.boolean("mlock");
        c.finish(&[]);
        (policy.unwrap_or(Policy::Other), mlock)
    });
    s.finish(&[]);
    if let (Some(node), Some(_)) = (&shard_node, count.1.as_ref()) {
        s.fault(
            "shard",
            node,
            "[[shard]] and [shards] count exclude each other",
        );
    }
    duplicates(&shards, shard_node.as_ref(), &mut s);
    let mut warnings = Vec::new();
    let (control_cores, shards) = match shard_node {
        Some(_) => (control_cores, shards),
        None => automatic(control_cores, count, cores, &mut s),
    };
    if let Some(shared) = shards.iter().find(|p| control_cores.contains(&p.core)) {
        warnings.push(format!(
            "core {} runs a shard and the control side",
            shared.core
        ));
    }
    Pinning {
        control_cores,
        shards,
        ring,
        sockets,
        huge_pages,
        policy,
        mlock,
        warnings,
    }
}

fn control(s: &mut Section<'_>, there: Cores<'_>) -> Vec<u32> {
    let node = s.peek("cores");
    let cores = s.list(
        "cores",
        "must be the number of a core",
        |value| match value {
            Value::Integer(i) => u32::try_from(*i).ok(),
            _ => text(value).and_then(|t| t.parse().ok()),
        },
    );
    if let Some(node) = node {
        for core in cores.iter().filter(|core| !there.may_be_named(**core)) {
            s.fault("cores", &node, offline(*core, there.online));
        }
    }
    s.finish(&[]);
    cores
}

fn offline(core: u32, online: &[u32]) -> String {
    let list: Vec<_> = online.iter().take(16).map(u32::to_string).collect();
    let more = if online.len() > 16 { " …" } else { "" };
    format!(
        "core {core} is not online; this machine offers {} ({}{more}); correct the map or use --pinning auto",
        if online.len() == 1 {
            "1 core".to_owned()
        } else {
            format!("{} cores", online.len())
        },
        list.join(", "),
    )
}

fn shard_pin(s: &mut Section<'_>, cores: Cores<'_>) -> Option<ShardPin> {
    let node = s.peek("core");
    let core = s.integer("core", 0..=65_535) as u32;
    let given = node
        .as_ref()
        .filter(|n| matches!(n.value, Value::Integer(0..=65_535)));
    if let Some(node) = given.filter(|_| !cores.may_be_named(core)) {
        s.fault("core", node, offline(core, cores.online));
    }
    let pin = ShardPin {
        core,
        numa_node: s.optional_integer("numa_node", 0..=1023).map(|n| n as u32),
        nic: s.optional_string("nic").map(|(nic, _)| nic),
        queue: s.optional_integer("queue", 0..=65_535).map(|n| n as u32),
    };
    s.finish(&[]);
    node.map(|_| pin)
}

fn duplicates(shards: &[ShardPin], node: Option<&Node>, s: &mut Section<'_>) {
    let Some(node) = node else { return };
    for (i, pin) in shards.iter().enumerate() {
        if shards.iter().take(i).any(|other| other.core == pin.core) {
            s.fault(
                "shard",
                node,
                format!("core {} is named by two shards", pin.core),
            );
        }
    }
    if shards.is_empty() {
        s.fault("shard", node, "at least one shard is needed");
    } else if shards.len() > 1024 {
        s.fault("shard", node, "at most 1024 shards");
    }
}

/// A fixed number of shards, and where it was written; `None` for "auto".
fn shard_count(s: &mut Section<'_>) -> (Option<usize>, Option<Node>) {
    let Some(node) = s.take("count") else {
        s.finish(&[]);
        return (None, None);
    };
    let count = match text(&node.value) {
        Some("auto") => None,
        _ => s
            .as_integer("count", &node, &(1..=1024))
            .map(|n| n as usize),
    };
    s.finish(&[]);
    (count, Some(node))
}

/// One shard per core but one: the first core stays with control, unless it is the only one.
fn automatic(
    control_cores: Vec<u32>,
    count: (Option<usize>, Option<Node>),
    cores: Cores<'_>,
    s: &mut Section<'_>,
) -> (Vec<u32>, Vec<ShardPin>) {
    let online = cores.online;
    let control = if control_cores.is_empty() {
        online.iter().take(1).copied().collect()
    } else {
        control_cores
    };
    let mut free: Vec<u32> = online
        .iter()
        .filter(|c| !control.contains(c))
        .copied()
        .collect();
    if free.is_empty() {
        free = online.to_vec();
    }
    if let (Some(wanted), Some(node)) = count {
        if wanted > free.len() && cores.others {
            // The next ones that a larger machine would have.
            let next = online.last().map_or(0, |last| last + 1);
            free.extend((next..).take(wanted - free.len()));
        } else if wanted > free.len() {
            s.fault(
                "shards.count",
                &node,
                format!(
                    "this machine has {} cores for shards; use \"auto\" or --pinning auto",
                    free.len()
                ),
            );
        }
        free.truncate(wanted);
    }
    free.truncate(1024);
    let pin = |core| ShardPin {
        core,
        numa_node: None,
        nic: None,
        queue: None,
    };
    (control, free.into_iter().map(pin).collect())
}

fn ring(s: &mut Section<'_>) -> RingPinning {
    let buffers_at = s.peek("buffers");
    let ring = RingPinning {
        min_wait: s.duration("min_wait", Duration::ZERO..=Duration::from_millis(10)),
        buffers: s.integer("buffers", 16..=32_768) as u16,
        gro: s.boolean("gro"),
        busy_poll: s.duration("busy_poll", Duration::ZERO..=Duration::from_millis(10)),
    };
    if let Some(node) = buffers_at.filter(|_| !ring.buffers.is_power_of_two()) {
        s.fault("buffers", &node, "must be a power of two from 16 to 32768");
    }
    s.finish(&[]);
    ring
}

fn parse_policy(text: &str) -> Option<Policy> {
    match text.strip_prefix("fifo") {
        Some(priority) => {
            let priority = priority.trim().parse().ok()?;
            (1..=99)
                .contains(&priority)
                .then_some(Policy::Fifo(priority))
        }
        None => (text == "other").then_some(Policy::Other),
    }
}
