//! `GET /api/v1/streams`: filters, order, pages (product contract, section 4).

use std::net::{IpAddr, SocketAddr};

use serde_json::{Value, json};

use super::response::Response;
use crate::clock::{WallClock, rfc3339_now};
use crate::record::{Record, source};
use crate::state::{Entry, SharedState, lock};

const MAX_LIMIT: usize = 10_000;
const DEFAULT_LIMIT: usize = 1_000;

#[derive(Debug, Default)]
struct Filter {
    status: Vec<String>,
    kind: Vec<String>,
    protocol: Vec<String>,
    codec: Vec<String>,
    health: Vec<String>,
    tags: Vec<String>,
    tags_any: Vec<String>,
    source_ip: Option<IpAddr>,
    source: Option<SocketAddr>,
    source_port: Option<u16>,
    shard: Option<u16>,
    created_after: Option<i64>,
    created_before: Option<i64>,
}

#[derive(Clone, Copy, Debug, Default)]
enum SortBy {
    #[default]
    Id,
    Created,
    Updated,
    Bitrate,
    Status,
}

#[derive(Debug, Default)]
struct Page {
    limit: Option<usize>,
    offset: usize,
    sort_by: SortBy,
    descending: bool,
}

pub(super) fn list(state: &SharedState, query: &[(String, String)]) -> Response {
    let (filter, page) = match parse(query) {
        Ok(parsed) => parsed,
        Err(message) => return Response::error(400, &message),
    };
    let clock = WallClock::read();
    let (mut found, context) = {
        let state = lock(state);
        let found: Vec<Entry> = state
            .streams
            .values()
            .filter(|e| filter.admits(e, &clock))
            .cloned()
            .collect();
        (found, state.context.clone())
    };
    found.sort_by(|a, b| a.snapshot.stream_id.cmp(&b.snapshot.stream_id));
    match page.sort_by {
        SortBy::Id => {}
        SortBy::Created => found.sort_by_key(|e| e.snapshot.created_at),
        SortBy::Updated => found.sort_by_key(|e| e.updated_at),
        SortBy::Bitrate => found.sort_by_key(|e| e.snapshot.stats.bitrate_bps),
        SortBy::Status => found.sort_by_key(|e| e.status.name()),
    }
    if page.descending {
        found.reverse();
    }
    let total = found.len();
    let streams: Vec<Value> = found
        .iter()
        .skip(page.offset)
        .take(page.limit.unwrap_or(DEFAULT_LIMIT))
        .map(|entry| Record::of(entry, &context, &clock).to_json())
        .collect();
    Response::json(&json!({
        "count": streams.len(),
        "total": total,
        "time": rfc3339_now(),
        "streams": streams,
    }))
}

fn words(value: &str) -> impl Iterator<Item = String> {
    value
        .split(',')
        .map(str::trim)
        .filter(|w| !w.is_empty())
        .map(str::to_owned)
}

fn number<T: std::str::FromStr>(key: &str, value: &str) -> Result<T, String> {
    value
        .parse()
        .map_err(|_| format!("{key}={value}: must be a whole number in range"))
}

fn time(key: &str, value: &str) -> Result<i64, String> {
    let time: jiff::Timestamp = value
        .parse()
        .map_err(|_| format!("{key}={value}: must be an RFC 3339 time"))?;
    Ok(time.as_microsecond())
}

fn parse(query: &[(String, String)]) -> Result<(Filter, Page), String> {
    let mut filter = Filter::default();
    let mut page = Page::default();
    for (key, value) in query {
        match key.as_str() {
            "status" => filter.status.extend(words(value)),
            "type" => filter.kind.extend(words(value)),
            "protocol" => filter.protocol.extend(words(value)),
            "codec" => filter.codec.extend(words(value)),
            "health" => filter.health.extend(words(value)),
            "tag" => filter.tags.push(value.clone()),
            "tags_any" => filter.tags_any.extend(words(value)),
            "source_addr" => match (value.parse::<SocketAddr>(), value.parse::<IpAddr>()) {
                (Ok(address), _) => filter.source = Some(address),
                (_, Ok(ip)) => filter.source_ip = Some(ip.to_canonical()),
                _ => {
                    return Err(format!(
                        "source_addr={value}: must be an IP address, or IP:port"
                    ));
                }
            },
            "source_port" => filter.source_port = Some(number(key, value)?),
            "shard" => filter.shard = Some(number(key, value)?),
            "created_after" => filter.created_after = Some(time(key, value)?),
            "created_before" => filter.created_before = Some(time(key, value)?),
            "limit" => {
                let limit: usize = number(key, value)?;
                if !(1..=MAX_LIMIT).contains(&limit) {
                    return Err(format!("limit={value}: must be from 1 to {MAX_LIMIT}"));
                }
                page.limit = Some(limit);
            }
            "offset" => page.offset = number(key, value)?,
            "sort_by" => {
                page.sort_by = match value.as_str() {
                    "id" | "name" => SortBy::Id,
                    "created_at" => SortBy::Created,
                    "updated_at" => SortBy::Updated,
                    "bitrate" => SortBy::Bitrate,
                    "status" => SortBy::Status,
                    _ => {
                        return Err(format!(
                            "sort_by={value}: must be id, name, created_at, updated_at, bitrate or status"
                        ));
                    }
                }
            }
            "sort_order" => {
                page.descending = match value.as_str() {
                    "asc" => false,
                    "desc" => true,
                    _ => return Err(format!("sort_order={value}: must be asc or desc")),
                }
            }
            "scope" if value == "local" => {}
            "scope" => {
                return Err(format!(
                    "scope={value}: only local is available in this version"
                ));
            }
            _ => return Err(format!("unknown parameter {key}")),
        }
    }
    Ok((filter, page))
}

fn one_of(wanted: &[String], value: &str) -> bool {
    wanted.is_empty() || wanted.iter().any(|w| w.eq_ignore_ascii_case(value))
}

impl Filter {
    fn admits(&self, entry: &Entry, clock: &WallClock) -> bool {
        let snapshot = &entry.snapshot;
        let source = source(snapshot);
        let tag = |tag: &String| entry.tags.contains(tag);
        let created = clock.unix_micros(snapshot.created_at);
        let codec = self.codec.is_empty()
            || snapshot
                .tracks
                .iter()
                .any(|t| one_of(&self.codec, t.codec.name()));
        codec
            && one_of(&self.status, entry.status.name())
            && one_of(&self.kind, snapshot.protocol.name())
            && one_of(&self.protocol, snapshot.protocol.name())
            && (self.health.is_empty() || one_of(&self.health, entry.health().0.name()))
            && self.tags.iter().all(tag)
            && (self.tags_any.is_empty() || self.tags_any.iter().any(tag))
            && self.source_ip.is_none_or(|ip| ip == source.ip())
            && self
                .source
                .is_none_or(|s| s.ip().to_canonical() == source.ip() && s.port() == source.port())
            && self.source_port.is_none_or(|port| port == source.port())
            && self
                .shard
                .is_none_or(|shard| entry.shard.is_some_and(|s| s.0 == shard))
            && self.created_after.is_none_or(|at| created > at)
            && self.created_before.is_none_or(|at| created < at)
    }
}
