//! What the core map says of where each shard lies (`numa_node`, `nic` and `queue` of
//! `[[shard]]`), held against what the kernel shows under `/sys`. Called by `check` for its table;
//! a running engine does not look at these keys.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use mirror_control::config::ShardPin;

use crate::check::{Row, list};

/// The rows on memory nodes and on the NIC queues that the core map names.
pub(crate) fn rows(shards: &[ShardPin], sys: &Path) -> Vec<Row> {
    let mut rows = vec![numa(shards, sys)];
    rows.extend(
        shards
            .iter()
            .enumerate()
            .filter_map(|(i, pin)| nic(i, pin, sys)),
    );
    rows
}

/// The memory node of a core; `None` where the kernel shows none.
fn node_of_core(core: u32, sys: &Path) -> Option<u32> {
    let dir = sys.join(format!("devices/system/cpu/cpu{core}"));
    fs::read_dir(dir).ok()?.flatten().find_map(|entry| {
        let name = entry.file_name();
        name.to_string_lossy().strip_prefix("node")?.parse().ok()
    })
}

/// The memory node of an interface; `None` where it has none (the kernel shows -1) or is virtual.
fn node_of_nic(nic: &str, sys: &Path) -> Option<u32> {
    let path = sys.join("class/net").join(nic).join("device/numa_node");
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn numa(shards: &[ShardPin], sys: &Path) -> Row {
    let wrong: Vec<String> = shards
        .iter()
        .filter_map(|pin| {
            let wanted = pin.numa_node?;
            let found = node_of_core(pin.core, sys).filter(|node| *node != wanted)?;
            let core = pin.core;
            Some(format!(
                "core {core} lies on node {found}, the core map says {wanted}"
            ))
        })
        .collect();
    if !wrong.is_empty() {
        return Row::warn(
            "NUMA",
            wrong.join("; "),
            "correct numa_node, or take a core of that node, in pinning.toml",
        );
    }
    let nodes: BTreeSet<u32> = shards
        .iter()
        .filter_map(|pin| node_of_core(pin.core, sys))
        .collect();
    if nodes.len() > 1 {
        Row::warn(
            "NUMA",
            format!("shard cores lie on nodes {}", list(&nodes)),
            "keep each shard on the node of the NIC that feeds it",
        )
    } else {
        Row::ok("NUMA", "one node")
    }
}

/// The row on the interface that feeds a shard, if the core map names one.
fn nic(shard: usize, pin: &ShardPin, sys: &Path) -> Option<Row> {
    const WHAT: &str = "shard's NIC";
    let Some(nic) = &pin.nic else {
        return pin.queue.map(|queue| {
            Row::warn(
                WHAT,
                format!("shard {shard}: queue {queue} of no interface"),
                "name the interface (nic) in pinning.toml",
            )
        });
    };
    // A name that leads out of the directory is no interface's.
    let dir = sys.join("class/net").join(nic);
    if nic.contains('/') || nic.starts_with('.') || !dir.exists() {
        return Some(Row::fail(
            WHAT,
            format!("shard {shard}: there is no interface {nic}"),
            "correct nic in pinning.toml; `ip link` lists the interfaces",
        ));
    }
    let queues = receive_queues(&dir);
    if let Some(queue) = pin.queue
        && queue as usize >= queues
    {
        return Some(Row::fail(
            WHAT,
            format!("shard {shard}: queue {queue} of {nic}, which has {queues} receive queues"),
            format!("ethtool -L {nic} combined {}", queue + 1),
        ));
    }
    let nodes = (node_of_core(pin.core, sys), node_of_nic(nic, sys));
    Some(match nodes {
        (Some(core), Some(card)) if core != card => Row::warn(
            WHAT,
            format!(
                "shard {shard}: core {} lies on node {core}, {nic} on node {card}",
                pin.core
            ),
            format!("take a core of node {card} in pinning.toml"),
        ),
        _ => {
            let queue = pin
                .queue
                .map_or_else(String::new, |queue| format!(", queue {queue} of {queues}"));
            Row::ok(WHAT, format!("shard {shard}: {nic}{queue}"))
        }
    })
}

/// Receive queues of the interface whose directory this is.
pub(crate) fn receive_queues(interface: &Path) -> usize {
    fs::read_dir(interface.join("queues"))
        .into_iter()
        .flatten()
        .flatten()
        .filter(|q| q.file_name().to_string_lossy().starts_with("rx-"))
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Verdict;

    /// Two cores on two nodes, and an interface with two queues on node 1.
    fn sys() -> std::path::PathBuf {
        // <target>/<profile>/deps/<test binary>: what a killed run leaves is the next one's.
        let target = std::env::current_exe().unwrap();
        let target = target.ancestors().nth(3).unwrap();
        let sys = target.join("tmp/mirror-daemon/sys");
        for dir in [
            "devices/system/cpu/cpu0/node0",
            "devices/system/cpu/cpu1/node1",
            "class/net/eth9/device",
            "class/net/eth9/queues/rx-0",
            "class/net/eth9/queues/rx-1",
            "class/net/eth9/queues/tx-0",
        ] {
            fs::create_dir_all(sys.join(dir)).unwrap();
        }
        fs::write(sys.join("class/net/eth9/device/numa_node"), "1\n").unwrap();
        sys
    }

    fn pin(core: u32, numa_node: Option<u32>, nic: Option<&str>, queue: Option<u32>) -> ShardPin {
        ShardPin {
            core,
            numa_node,
            nic: nic.map(str::to_owned),
            queue,
        }
    }

    #[test]
    fn placement_of_the_core_map_is_held_against_the_host() {
        let sys = sys();
        for (pin, verdicts) in [
            (pin(0, None, None, None), vec![Verdict::Ok]),
            (pin(0, Some(0), None, None), vec![Verdict::Ok]),
            (pin(0, Some(1), None, None), vec![Verdict::Warn]),
            (
                pin(1, Some(1), Some("eth9"), Some(1)),
                vec![Verdict::Ok, Verdict::Ok],
            ),
            (
                pin(1, None, Some("eth9"), Some(2)),
                vec![Verdict::Ok, Verdict::Fail],
            ),
            (
                pin(0, None, Some("eth9"), Some(0)),
                vec![Verdict::Ok, Verdict::Warn],
            ),
            (
                pin(0, None, Some("eth8"), None),
                vec![Verdict::Ok, Verdict::Fail],
            ),
            (
                pin(0, None, Some("../net"), None),
                vec![Verdict::Ok, Verdict::Fail],
            ),
            (
                pin(0, None, None, Some(0)),
                vec![Verdict::Ok, Verdict::Warn],
            ),
        ] {
            let found: Vec<_> = rows(std::slice::from_ref(&pin), &sys)
                .iter()
                .map(|row| row.verdict)
                .collect();
            assert_eq!(found, verdicts, "{pin:?}");
        }
        let both = [pin(0, None, None, None), pin(1, None, None, None)];
        let row = numa(&both, &sys);
        assert!(row.verdict == Verdict::Warn && row.found.contains("0,1"));
        fs::remove_dir_all(sys).unwrap();
    }
}
