//! `mirror-ingest check`: looks at the host with the core map in hand and says, row by row, what
//! is fine, what costs performance, and what will not work, each with the command that mends it.
//!
//! Reads `/proc` and `/sys` only; changes nothing.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use mirror_control::config::ShardPin;
use serde_json::json;

use crate::budget::{available, meminfo};
use crate::placement;

/// How a row turned out.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Verdict {
    Ok,
    Warn,
    Fail,
}

impl Verdict {
    const fn name(self) -> &'static str {
        match self {
            Verdict::Ok => "ok",
            Verdict::Warn => "warn",
            Verdict::Fail => "fail",
        }
    }
}

/// One row of the table.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) what: &'static str,
    pub(crate) verdict: Verdict,
    pub(crate) found: String,
    /// The command that mends it, or empty.
    pub(crate) mend: String,
}

impl Row {
    pub(crate) fn ok(what: &'static str, found: impl Into<String>) -> Self {
        Row {
            what,
            verdict: Verdict::Ok,
            found: found.into(),
            mend: String::new(),
        }
    }

    pub(crate) fn warn(
        what: &'static str,
        found: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        Row {
            what,
            verdict: Verdict::Warn,
            found: found.into(),
            mend: mend.into(),
        }
    }

    pub(crate) fn fail(
        what: &'static str,
        found: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        Row {
            what,
            verdict: Verdict::Fail,
            found: found.into(),
            mend: mend.into(),
        }
    }
}

/// What the core map and the configuration ask of the host.
#[derive(Debug)]
pub(crate) struct Wanted {
    /// Cores of shards; empty when they are not pinned.
    pub(crate) shard_cores: Vec<u32>,
    /// What the core map says of each shard.
    pub(crate) shards: Vec<ShardPin>,
    /// Cores of the control side.
    pub(crate) control_cores: Vec<u32>,
    /// Options of each shard's ring.
    pub(crate) reactor: mirror_uring::ReactorConfig,
    /// SO_RCVBUF asked for.
    pub(crate) receive_buffer: u64,
    /// Bytes of packet memory in all.
    pub(crate) memory: u64,
    /// Whether huge pages are asked for.
    pub(crate) huge_pages: bool,
    /// Whether GRO is asked for.
    pub(crate) gro: bool,
}

fn read(path: impl AsRef<Path>) -> Option<String> {
    fs::read_to_string(path).ok().map(|s| s.trim().to_owned())
}

/// Parses the kernel's list form: `0-3,8`.
pub(crate) fn parse_cpu_list(text: &str) -> BTreeSet<u32> {
    let mut cores = BTreeSet::new();
    for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        let (low, high) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(low), Ok(high)) = (low.parse::<u32>(), high.parse::<u32>())
            && high.saturating_sub(low) < 4096
        {
            cores.extend(low..=high);
        }
    }
    cores
}

pub(crate) fn list(cores: &BTreeSet<u32>) -> String {
    cores
        .iter()
        .map(u32::to_string)
        .collect::<Vec<_>>()
        .join(",")
}

/// All rows for this host.
pub(crate) fn rows(wanted: &Wanted) -> Vec<Row> {
    let mut rows = vec![kernel(), io_uring(wanted)];
    rows.push(receive_buffer(wanted));
    rows.push(cores(wanted));
    rows.push(isolation(wanted));
    rows.push(governor(wanted));
    rows.push(irq_affinity(wanted));
    rows.extend(placement::rows(&wanted.shards, Path::new("/sys")));
    rows.extend(network(wanted));
    rows.push(memory(wanted));
    if wanted.huge_pages {
        rows.push(huge_pages(wanted));
    }
    rows
}

fn kernel() -> Row {
    let release = read("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release
        .split(['.', '-'])
        .map_while(|n| n.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version >= (6, 12) {
        Row::ok("kernel", release)
    } else if version >= (6, 1) {
        Row::warn(
            "kernel",
            format!("{release}: wake coalescing (min_wait) needs 6.12"),
            "install a kernel of 6.12 or later",
        )
    } else {
        Row::fail(
            "kernel",
            format!("{release}: io_uring features of 6.1 are needed"),
            "install a kernel of 6.12 or later",
        )
    }
}

fn io_uring(wanted: &Wanted) -> Row {
    match mirror_uring::probe_for(wanted.shard_cores.len().max(1), &wanted.reactor) {
        Ok(()) => Row::ok("io_uring", "usable, memlock sufficient"),
        Err(error) => Row::fail("io_uring", error.to_string(), "see the message"),
    }
}

fn receive_buffer(wanted: &Wanted) -> Row {
    let max = read("/proc/sys/net/core/rmem_max")
        .and_then(|s| s.parse::<u64>().ok())
        .unwrap_or(0);
    let privileged =
        read("/proc/self/status").is_some_and(|status| has_capability(&status, CAP_NET_ADMIN));
    let found = format!(
        "net.core.rmem_max = {max}, {} asked for",
        wanted.receive_buffer
    );
    if max >= wanted.receive_buffer {
        Row::ok("receive buffer", found)
    } else if privileged {
        Row::ok(
            "receive buffer",
            format!("{found}; CAP_NET_ADMIN is held, so the limit does not bind"),
        )
    } else {
        Row::warn(
            "receive buffer",
            found,
            format!("sysctl -w net.core.rmem_max={}", wanted.receive_buffer),
        )
    }
}

/// What SO_RCVBUFFORCE asks for; being root does not bring it along in a container.
const CAP_NET_ADMIN: u32 = 12;

/// Whether `/proc/self/status` shows the capability as effective.
fn has_capability(status: &str, number: u32) -> bool {
    status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask >> number & 1 == 1)
}

fn allowed_cores() -> BTreeSet<u32> {
    read("/proc/self/status")
        .and_then(|s| {
            s.lines().find_map(|l| {
                l.strip_prefix("Cpus_allowed_list:")
                    .map(|l| l.trim().to_owned())
            })
        })
        .map(|l| parse_cpu_list(&l))
        .unwrap_or_default()
}

fn cores(wanted: &Wanted) -> Row {
    let allowed = allowed_cores();
    let asked: BTreeSet<u32> = wanted
        .shard_cores
        .iter()
        .chain(&wanted.control_cores)
        .copied()
        .collect();
    let missing: BTreeSet<u32> = asked.difference(&allowed).copied().collect();
    if !missing.is_empty() {
        return Row::fail(
            "cores",
            format!(
                "the core map names {}, allowed are {}",
                list(&missing),
                list(&allowed)
            ),
            "mend pinning.toml, widen the process's CPU mask, or run with --pinning auto",
        );
    }
    let shards: BTreeSet<u32> = wanted.shard_cores.iter().copied().collect();
    let shared: BTreeSet<u32> = wanted
        .control_cores
        .iter()
        .copied()
        .filter(|c| shards.contains(c))
        .collect();
    if shared.is_empty() {
        Row::ok(
            "cores",
            format!("shards on {}, allowed {}", list(&shards), list(&allowed)),
        )
    } else {
        Row::warn(
            "cores",
            format!("control shares core {} with a shard", list(&shared)),
            "give control a core of its own in pinning.toml",
        )
    }
}

fn isolation(wanted: &Wanted) -> Row {
    let isolated = parse_cpu_list(&read("/sys/devices/system/cpu/isolated").unwrap_or_default());
    let bare: BTreeSet<u32> = wanted
        .shard_cores
        .iter()
        .copied()
        .filter(|c| !isolated.contains(c))
        .collect();
    if bare.is_empty() && !wanted.shard_cores.is_empty() {
        Row::ok(
            "isolation",
            format!("shard cores are isolated ({})", list(&isolated)),
        )
    } else {
        Row::warn(
            "isolation",
            format!(
                "not isolated from other work: {}",
                if bare.is_empty() {
                    "all".into()
                } else {
                    list(&bare)
                }
            ),
            format!("kernel parameter isolcpus={0} nohz_full={0}", list(&bare)),
        )
    }
}

fn governor(wanted: &Wanted) -> Row {
    let slow: Vec<String> = wanted
        .shard_cores
        .iter()
        .filter_map(|core| {
            let path = format!("/sys/devices/system/cpu/cpu{core}/cpufreq/scaling_governor");
            read(path)
                .filter(|g| g != "performance")
                .map(|g| format!("cpu{core}: {g}"))
        })
        .collect();
    if slow.is_empty() {
        Row::ok("governor", "performance, or not under our control")
    } else {
        Row::warn(
            "governor",
            slow.join(", "),
            "cpupower frequency-set -g performance",
        )
    }
}

fn irq_affinity(wanted: &Wanted) -> Row {
    let shards: BTreeSet<u32> = wanted.shard_cores.iter().copied().collect();
    let mut hit = Vec::new();
    for entry in fs::read_dir("/proc/irq").into_iter().flatten().flatten() {
        let Ok(number) = entry.file_name().to_string_lossy().parse::<u32>() else {
            continue;
        };
        let mask = read(entry.path().join("effective_affinity_list"))
            .or_else(|| read(entry.path().join("smp_affinity_list")))
            .unwrap_or_default();
        let has_handler =
            fs::read_dir(entry.path()).is_ok_and(|dir| dir.flatten().any(|e| e.path().is_dir()));
        if has_handler && parse_cpu_list(&mask).iter().any(|c| shards.contains(c)) {
            hit.push(number);
        }
    }
    hit.sort_unstable();
    if hit.is_empty() {
        return Row::ok("IRQ affinity", "no interrupt is bound to a shard's core");
    }
    let shown = hit
        .iter()
        .take(8)
        .map(u32::to_string)
        .collect::<Vec<_>>()
        .join(",");
    Row::warn(
        "IRQ affinity",
        format!(
            "{} interrupts may fire on shard cores ({shown}{})",
            hit.len(),
            if hit.len() > 8 { ",…" } else { "" }
        ),
        "bind each NIC queue's interrupt to the core of its shard: echo CORE > /proc/irq/N/smp_affinity_list",
    )
}

fn network(wanted: &Wanted) -> Vec<Row> {
    let mut rows = Vec::new();
    for entry in fs::read_dir("/sys/class/net")
        .into_iter()
        .flatten()
        .flatten()
    {
        let name = entry.file_name().to_string_lossy().into_owned();
        // Only what has hardware behind it.
        if !entry.path().join("device").exists() {
            continue;
        }
        let queues = placement::receive_queues(&entry.path());
        let shards = wanted.shard_cores.len().max(1);
        rows.push(if queues >= shards {
            Row::ok(
                "NIC queues",
                format!("{name}: {queues} receive queues for {shards} shards"),
            )
        } else {
            Row::warn(
                "NIC queues",
                format!("{name}: {queues} receive queues for {shards} shards"),
                format!("ethtool -L {name} combined {shards}"),
            )
        });
        if wanted.gro {
            rows.push(Row::warn(
                "NIC GRO",
                format!("{name}: gro = true pays only when the NIC coalesces UDP"),
                format!("ethtool -K {name} gro on rx-udp-gro-forwarding on"),
            ));
        }
    }
    rows
}

fn memory(wanted: &Wanted) -> Row {
    let available = available().unwrap_or(0);
    let mib = |bytes: u64| bytes >> 20;
    let found = format!(
        "{} MiB of packet memory, {} MiB available",
        mib(wanted.memory),
        mib(available)
    );
    if available > wanted.memory + wanted.memory / 8 {
        Row::ok("memory", found)
    } else {
        Row::fail(
            "memory",
            found,
            "lower buffer.pool_streams, buffer.ring_size or memory.total",
        )
    }
}

fn huge_pages(wanted: &Wanted) -> Row {
    let free = meminfo("HugePages_Free").unwrap_or(0);
    let size_kib = meminfo("Hugepagesize").unwrap_or(2048);
    let needed = wanted.memory.div_ceil(size_kib * 1024);
    if free >= needed {
        Row::ok("huge pages", format!("{free} free, {needed} needed"))
    } else {
        Row::warn(
            "huge pages",
            format!("{free} free, {needed} needed"),
            format!("sysctl -w vm.nr_hugepages={needed}"),
        )
    }
}

/// The worst verdict.
pub(crate) fn worst(rows: &[Row]) -> Verdict {
    rows.iter().map(|r| r.verdict).max().unwrap_or(Verdict::Ok)
}

/// The table for people.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut table = comfy_table::Table::new();
    table.load_preset(comfy_table::presets::NOTHING);
    table.set_content_arrangement(comfy_table::ContentArrangement::Dynamic);
    table.set_header(["", "what", "found", "mend"]);
    for row in rows {
        table.add_row([row.verdict.name(), row.what, &row.found, &row.mend]);
    }
    table.to_string()
}

/// The rows for programs.
pub(crate) fn as_json(rows: &[Row]) -> serde_json::Value {
    json!({
        "verdict": worst(rows).name(),
        "rows": rows.iter().map(|r| json!({
            "what": r.what, "verdict": r.verdict.name(), "found": r.found,
            "mend": if r.mend.is_empty() { None } else { Some(&r.mend) },
        })).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_lists_are_read_as_the_kernel_writes_them() {
        assert_eq!(list(&parse_cpu_list("0-2,5")), "0,1,2,5");
        assert!(parse_cpu_list("").is_empty());
        assert!(parse_cpu_list("0-99999999").is_empty());
    }

    #[test]
    fn privilege_for_the_receive_buffer_is_a_capability_not_root() {
        let container = "Uid:\t0\t0\t0\t0\nCapEff:\t00000000a80425fb\n";
        assert!(!has_capability(container, CAP_NET_ADMIN));
        assert!(has_capability("CapEff:\t000001ffffffffff\n", CAP_NET_ADMIN));
        assert!(!has_capability("", CAP_NET_ADMIN));
    }

    #[test]
    fn a_core_that_is_not_there_fails_and_names_the_mend() {
        let wanted = Wanted {
            shard_cores: vec![4000],
            shards: vec![],
            control_cores: vec![],
            receive_buffer: 0,
            reactor: mirror_uring::ReactorConfig::default(),
            memory: 0,
            huge_pages: false,
            gro: false,
        };
        let row = cores(&wanted);
        assert_eq!(row.verdict, Verdict::Fail);
        assert!(row.found.contains("4000") && row.mend.contains("pinning"));
    }
}
