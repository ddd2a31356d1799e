//! What a stream's frames tell, for the API and the metrics: tracks, groups of pictures, audio
//! against video, the ring, recovery, TR 101 290, splices. Times of media are 90 kHz ticks,
//! unwrapped.

use metrics::{counter, describe_counter, describe_gauge, gauge};
use mirror_base::Instant;
use mirror_media::gop::Gop;
use mirror_media::{Codec, FieldOrder, MasteringDisplay, SpliceCommand, Tr101290, Track};
use mirror_stream::figures::{SpliceRecord, TrackFigures};
use mirror_stream::report::{PipelineState, Status};
use serde_json::{Map, Value, json};

use crate::clock::WallClock;
use crate::config::GopConfig;
use crate::state::Entry;

fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

fn ms(us: i64) -> f64 {
    us as f64 / 1000.0
}

fn ticks_ms(ticks: u64) -> f64 {
    round(ticks as f64 / 90.0)
}

fn codec(track: &Track) -> Option<&'static str> {
    (track.codec != Codec::Unknown).then(|| track.codec.name())
}

/// A track of the record.
pub(crate) fn track(track: &Track, figures: Option<&TrackFigures>) -> Value {
    let declared = (track.frame_rate.0 > 0 && track.frame_rate.1 > 0)
        .then(|| round(f64::from(track.frame_rate.0) / f64::from(track.frame_rate.1)));
    let known = |n: u32| (n > 0).then_some(n);
    let chroma = match track.chroma_format {
        0 => "4:0:0",
        1 => "4:2:0",
        2 => "4:2:2",
        _ => "4:4:4",
    };
    let video = track.codec.is_video();
    let has_tiers = matches!(track.codec, Codec::H265 | Codec::Av1);
    let side = &track.side;
    let mut value = json!({
        "id": track.id,
        "program": known(u32::from(track.program)),
        "stream_type": known(u32::from(track.stream_type)),
        "codec": codec(track),
        "profile": (!track.profile.is_empty()).then_some(track.profile),
        // seq_level_idx 0 is AV1's level 2.0.
        "level": known(u32::from(track.level))
            .or((track.codec == Codec::Av1 && track.width > 0).then_some(0)),
        "tier": has_tiers.then_some(if track.high_tier { "High" } else { "Main" }),
        "width": known(track.width),
        "height": known(track.height),
        "frame_rate": declared,
        "bit_depth": known(u32::from(track.bit_depth)),
        "chroma": (video && track.width > 0).then_some(chroma),
        "interlaced": video.then_some(track.interlaced),
        "field_order": track.field_order.map(FieldOrder::name),
        "reorder_depth": video.then_some(track.reorder_depth),
        "temporal_layers": known(u32::from(track.temporal_layers)),
        "enhancement_layers": video.then_some(track.enhancement_layers),
        "colour": video.then(|| colour(track)),
        "hdr": video.then(|| hdr(track)),
        "sei": video.then(|| json!({
            "recovery_point": side.recovery_point,
            "timecode": side.timecode
                .map(|[h, m, s, f]| format!("{h:02}:{m:02}:{s:02}:{f:02}")),
            "cea608": side.cea608,
            "cea708": side.cea708,
        })),
        "film_grain": video.then_some(track.film_grain),
        "screen_content": video.then_some(track.screen_content),
        "sample_rate": known(track.sample_rate),
        "channels": known(u32::from(track.channels)),
        "language": (track.language != [0; 3])
            .then(|| String::from_utf8_lossy(&track.language).into_owned()),
        "scrambled": track.scrambled,
        "gone": track.gone,
    });
    if let (Some(map), Some(figures)) = (value.as_object_mut(), figures) {
        map.extend(measured(figures));
    }
    value
}

fn measured(figures: &TrackFigures) -> Map<String, Value> {
    let mut map = Map::new();
    let mut put = |key: &str, value: Value| {
        map.insert(key.to_owned(), value);
    };
    put("units", json!(figures.units));
    put("units_damaged", json!(figures.damaged));
    put("bytes", json!(figures.bytes));
    put("bitrate", json!(figures.bitrate_bps));
    put("measured_rate", json!(figures.rate_milli as f64 / 1000.0));
    put("last_pts", json!(figures.last_pts));
    put("last_dts", json!(figures.last_dts));
    put("clock_offset", json!(figures.clock_offset));
    map
}

fn colour(track: &Track) -> Value {
    let c = &track.colour;
    json!({
        "primaries": c.primaries,
        "transfer": c.transfer,
        "matrix": c.matrix,
        "full_range": c.full_range,
    })
}

/// By H.273: 16 is PQ, 18 is HLG.
fn hdr(track: &Track) -> Value {
    let side = &track.side;
    let format = match track.colour.transfer {
        16 if side.hdr10_plus => Some("HDR10+"),
        16 if side.mastering.is_some() || side.light.is_some() => Some("HDR10"),
        16 => Some("PQ"),
        18 => Some("HLG"),
        _ => None,
    };
    json!({
        "format": format,
        "mastering_display": side.mastering.map(|m| mastering(&m)),
        "content_light": side.light.map(|l| json!({ "max_cll": l.max, "max_fall": l.max_average })),
    })
}

fn mastering(m: &MasteringDisplay) -> Value {
    json!({
        "primaries_gbr": m.primaries,
        "white_point": m.white_point,
        "max_luminance": f64::from(m.max_luminance) / 10_000.0,
        "min_luminance": f64::from(m.min_luminance) / 10_000.0,
    })
}

/// `GET /streams/{id}/sync`.
pub(crate) fn sync(entry: &Entry, clock: &WallClock) -> Map<String, Value> {
    let figures = &entry.snapshot.figures;
    let sync = &figures.sync;
    let drift = &sync.figures;
    let of = |track: Option<u16>| {
        let at = track.map(usize::from);
        at.and_then(|at| Some((entry.snapshot.tracks.get(at)?, figures.tracks.get(at)?)))
            .map(|(track, figures)| track_clock(track, figures))
    };
    let value = json!({
        "status": sync.status.name(),
        "video": of(sync.video),
        "audio": of(sync.audio),
        "drift": {
            "current": ms(drift.current_us),
            "max": ms(drift.max_us),
            "min": ms(drift.min_us),
            "avg": ms(drift.mean_us()),
            "sample_count": drift.samples,
            "last_corrected": drift.corrected_at.map(|at| clock.rfc3339(at)),
            "correction": ms(drift.correction_us),
            "residual": ms(drift.residual_us()),
            "excessive": sync.excessive,
            "unit": "ms",
        },
        "interleave_ms": (drift.samples > 0).then(|| ms(drift.interleave_us)),
        "source_drift_ppm": sync.source_drift_ppm.map(round),
        "tracks": entry.snapshot.tracks.iter().zip(&figures.tracks)
            .map(|(track, figures)| track_clock(track, figures)).collect::<Vec<_>>(),
    });
    object(value)
}

fn track_clock(track: &Track, figures: &TrackFigures) -> Value {
    json!({
        "id": track.id,
        "codec": codec(track),
        "last_pts": figures.last_pts,
        "last_dts": figures.last_dts,
        "packet_count": figures.units,
        "dropped_count": figures.damaged,
        "wrap_count": figures.wraps,
        "jump_count": figures.jumps,
        "error_count": figures.errors,
        "clock_offset": figures.clock_offset,
    })
}

/// `GET /streams/{id}/buffer`.
pub(crate) fn buffer(entry: &Entry, config: &GopConfig, clock: &WallClock) -> Map<String, Value> {
    let s = &entry.snapshot.stats;
    let (capacity, used) = (s.ring_capacity_bytes, s.ring_used_bytes);
    let pressure = if capacity == 0 {
        0.0
    } else {
        (used as f64 / capacity as f64).min(1.0)
    };
    let report = &entry.snapshot.figures.gop;
    let cache = &report.cache;
    let in_ring = (report.group_bytes > 0)
        .then(|| (report.history_bytes as f64 / report.group_bytes as f64).min(config.keep as f64));
    let age = cache.since.map(|at| entry.seen_at.saturating_since(at));
    let value = json!({
        "capacity": capacity,
        "used": used,
        "available": capacity.saturating_sub(used),
        "unit": "bytes",
        "slot_bytes": s.ring_slot_bytes,
        "frames_assembled": s.frames_assembled,
        "frames_dropped": s.frames_dropped,
        "frames_damaged": s.frames_damaged,
        "key_frames": s.key_frames,
        "p_frames": s.p_frames,
        "b_frames": s.b_frames,
        "pressure": round(pressure),
        "gop": gop(entry, clock),
        "gop_buffer": {
            "gops": cache.gops,
            "frames": cache.frames,
            "units": cache.units,
            "bytes": cache.bytes,
            "age_ms": age.map(|age| age.as_millis() as u64),
            "startable": cache.gops > 0,
            "ring_bytes": report.ring_bytes,
            "group_ring_bytes": report.group_bytes,
            "history_ring_bytes": report.history_bytes,
            "groups_in_ring": in_ring.map(round),
            "shorter_than_a_group": report.is_short,
            "keep": config.keep,
            "max_frames": config.max_frames,
            "max_bytes": config.max_bytes,
            "max_age_ms": config.max_age.as_millis() as u64,
        },
    });
    object(value)
}

/// Groups of pictures.
pub(crate) fn gop(entry: &Entry, clock: &WallClock) -> Value {
    let gop = &entry.snapshot.figures.gop;
    let s = &gop.statistics;
    let last: Vec<u32> = s.last_frames.iter().copied().filter(|n| *n > 0).collect();
    json!({
        "count": s.begun,
        "open": s.open,
        "closed": s.closed,
        "avg_size": round(s.frames.mean()),
        "min_size": s.frames.min,
        "max_size": s.frames.max,
        "last_sizes": last,
        "avg_bytes": s.bytes.mean().round(),
        "max_bytes": s.bytes.max,
        "avg_duration_ms": round(s.duration.mean() / 90.0),
        "min_duration_ms": ticks_ms(s.duration.min),
        "max_duration_ms": ticks_ms(s.duration.max),
        "structure": (!gop.structure.is_empty()).then_some(&gop.structure),
        "current": gop.current.as_ref().map(|gop| one(gop, clock)),
        "last": gop.last.as_ref().map(|gop| one(gop, clock)),
        "last_key_frame": gop.last_access_point.map(|at| clock.rfc3339(at)),
        "key_frame_missing": gop.key_frame_missing,
    })
}

fn one(gop: &Gop, clock: &WallClock) -> Value {
    json!({
        "number": gop.number,
        "began": clock.rfc3339(gop.began),
        "open": gop.open,
        "frames": gop.frames,
        "i_frames": gop.i_frames,
        "p_frames": gop.p_frames,
        "b_frames": gop.b_frames,
        "damaged": gop.damaged,
        "bytes": gop.bytes,
        "start": gop.start,
        "duration_ms": gop.duration.map(ticks_ms),
    })
}

/// A stream's part of `GET /streams/stats/video`.
pub(crate) fn video(entry: &Entry) -> Value {
    let s = &entry.snapshot.stats;
    let gop = &entry.snapshot.figures.gop.statistics;
    json!({
        "id": entry.snapshot.stream_id.as_str(),
        "status": entry.status.name(),
        "codec": entry.snapshot.video().and_then(codec),
        "frames_assembled": s.video_frames,
        "frames_dropped": s.frames_dropped,
        "frames_damaged": s.frames_damaged,
        "key_frames": s.key_frames,
        "p_frames": s.p_frames,
        "b_frames": s.b_frames,
        "gop_count": gop.begun,
        "avg_gop_size": round(gop.frames.mean()),
        "frame_rate": f64::from(s.frame_rate_milli) / 1000.0,
    })
}

/// `GET /streams/{id}/recovery`.
pub(crate) fn recovery(entry: &Entry, clock: &WallClock) -> Map<String, Value> {
    let snapshot = &*entry.snapshot;
    let recovery = &snapshot.figures.recovery;
    let state = match (entry.status, snapshot.state) {
        (Status::Error, _) => "failed",
        (_, PipelineState::Recovering) => "recovering",
        // Packets come, and no frame has its place yet.
        (Status::Active, PipelineState::Buffering) => "resyncing",
        _ => "normal",
    };
    let (health, reasons) = crate::health::of(entry);
    let s = &snapshot.stats;
    object(json!({
        "state": state,
        "is_healthy": health == crate::health::Health::Healthy,
        "health_reasons": reasons,
        "recovery_count": recovery.recoveries,
        "corruption_count": s.frames_damaged.saturating_sub(s.frames_undecodable),
        "resync_count": recovery.resyncs,
        "damage_count": recovery.damages,
        "last_recovery_time": recovery.recovered_at.map(|at| clock.rfc3339(at)),
        "undecodable_count": s.frames_undecodable,
        "references_missing_count": s.frames_references_missing,
        "wants_key_frame": snapshot.figures.gop.key_frame_missing
            || snapshot.state == PipelineState::Recovering,
    }))
}

/// The measurements of TR 101 290, under the standard's numbers: of all transport streams together
/// and, where a stream has several media, of each.
pub(crate) fn tr101290(entry: &Entry, clock: &WallClock) -> Option<Value> {
    let figures = &entry.snapshot.figures;
    let mut all = indicators(figures.tr101290.as_ref()?, clock);
    if !figures.tr101290_of.is_empty() {
        let each = figures.tr101290_of.iter().map(|(medium, report)| {
            let mut one = indicators(report, clock);
            one.insert("medium".to_owned(), json!(medium));
            Value::Object(one)
        });
        all.insert("media".to_owned(), each.collect());
    }
    Some(Value::Object(all))
}

fn indicators(report: &Tr101290, clock: &WallClock) -> Map<String, Value> {
    let mut map = Map::new();
    for indicator in &report.indicators {
        let value = json!({
            "name": indicator.name,
            "count": indicator.count,
            "pid": indicator.pid,
            "last": indicator.last.map(|at| clock.rfc3339(at)),
        });
        map.insert(indicator.number.to_owned(), value);
    }
    for (number, name, count) in [
        ("2.3a", "PCR_repetition_error", report.pcr_repetition),
        (
            "2.3b",
            "PCR_discontinuity_indicator_error",
            report.pcr_discontinuity,
        ),
    ] {
        map.insert(number.to_owned(), json!({ "name": name, "count": count }));
    }
    map
}

/// The last splice commands (SCTE 35).
pub(crate) fn splices(entry: &Entry, clock: &WallClock) -> Vec<Value> {
    let splices = &entry.snapshot.figures.splices;
    splices.iter().map(|s| splice(s, clock)).collect()
}

/// "splice_insert", "time_signal", or the number of another command.
pub(crate) fn command(record: &SpliceRecord) -> String {
    match record.splice.command {
        SpliceCommand::Null => "splice_null".to_owned(),
        SpliceCommand::Insert { .. } => "splice_insert".to_owned(),
        SpliceCommand::TimeSignal => "time_signal".to_owned(),
        SpliceCommand::Other(number) => format!("0x{number:02x}"),
    }
}

fn splice(record: &SpliceRecord, clock: &WallClock) -> Value {
    let splice = &record.splice;
    let mut value = json!({
        "number": record.number,
        "time": clock.rfc3339(record.at),
        "command": command(record),
        "pts": splice.pts,
        "received": splice.received,
        "repeats": record.repeats,
        "segmentation": splice.segmentation.map(|s| json!({
            "event_id": s.event,
            "cancel": s.cancel,
            "type_id": s.kind,
            "duration_ms": s.duration.map(ticks_ms),
            "upid_type": s.upid_type,
            "segment_num": s.segment.0,
            "segments_expected": s.segment.1,
        })),
    });
    if let (
        Some(map),
        SpliceCommand::Insert {
            event,
            out,
            cancel,
            duration,
        },
    ) = (value.as_object_mut(), splice.command)
    {
        map.insert("event_id".to_owned(), json!(event));
        map.insert("out_of_network".to_owned(), json!(out));
        map.insert("cancel".to_owned(), json!(cancel));
        map.insert("duration_ms".to_owned(), json!(duration.map(ticks_ms)));
    }
    value
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

const COUNTERS: [(&str, &str); 12] = [
    (
        "frames_references_missing_total",
        "Frames that refer to pictures which never came, in frames",
    ),
    (
        "frames_undecodable_total",
        "Frames that came whole before decoding could begin, in frames",
    ),
    (
        "gop_open_total",
        "Complete open groups of pictures, in GOPs",
    ),
    (
        "gop_closed_total",
        "Complete closed groups of pictures, in GOPs",
    ),
    (
        "ts_tr101290_errors_total",
        "Errors by the indicators of ETSI TR 101 290, in errors",
    ),
    (
        "ts_sync_losses_total",
        "Losses of the grid of TS packets, in losses",
    ),
    (
        "scte35_splices_total",
        "Splice commands, repetitions and splice_null left out, in commands",
    ),
    ("klv_units_total", "KLV units, in units"),
    ("track_units_total", "Access units of a track, in units"),
    (
        "track_timestamp_wraps_total",
        "Times that a track's wire timestamps began anew, in wraps",
    ),
    (
        "track_timestamp_jumps_total",
        "Jumps of a track's timestamps, in jumps",
    ),
    (
        "stream_recoveries_total",
        "Times that a key frame ended what damage had begun, in recoveries",
    ),
];
const GAUGES: [(&str, &str); 9] = [
    (
        "gop_size_frames",
        "Mean length of complete groups of pictures, in frames",
    ),
    (
        "gop_duration_seconds",
        "Mean duration of complete groups of pictures, in seconds",
    ),
    ("gop_buffer_gops", "Groups of pictures kept, in GOPs"),
    ("gop_buffer_bytes", "Frames kept, in bytes"),
    (
        "gop_key_frame_missing",
        "1 when no key frame came for gop.keyframe_timeout, else 0",
    ),
    (
        "av_sync_drift_seconds",
        "How far audio's times run ahead of video's since the beginning, in seconds",
    ),
    (
        "av_sync_correction_seconds",
        "What is added to audio's times, in seconds",
    ),
    (
        "source_clock_drift_ppm",
        "How much faster the source's clock runs than ours, in parts per million",
    ),
    (
        "track_bitrate",
        "Elementary stream of a track over the last seconds, in bits per second",
    ),
];

/// HELP texts.
pub(crate) fn describe() {
    for (name, text) in COUNTERS {
        describe_counter!(name, text);
    }
    for (name, text) in GAUGES {
        describe_gauge!(name, text);
    }
}

/// Tracks of a stream whose own series are shown.
const MAX_TRACK_SERIES: usize = 32;

/// The metrics of a stream.
pub(crate) fn publish(entry: &Entry) {
    let snapshot = &*entry.snapshot;
    let (figures, s) = (&*snapshot.figures, &snapshot.stats);
    let id = || snapshot.stream_id.as_str().to_owned();
    counter!("frames_undecodable_total", "stream_id" => id()).absolute(s.frames_undecodable);
    counter!("frames_references_missing_total", "stream_id" => id())
        .absolute(s.frames_references_missing);
    counter!("ts_sync_losses_total", "stream_id" => id()).absolute(s.sync_losses);
    counter!("scte35_splices_total", "stream_id" => id()).absolute(figures.splices_total);
    counter!("klv_units_total", "stream_id" => id()).absolute(figures.klv_units);
    counter!("stream_recoveries_total", "stream_id" => id()).absolute(figures.recovery.recoveries);
    let gop = &figures.gop.statistics;
    counter!("gop_open_total", "stream_id" => id()).absolute(gop.open);
    counter!("gop_closed_total", "stream_id" => id()).absolute(gop.closed);
    gauge!("gop_size_frames", "stream_id" => id()).set(gop.frames.mean());
    gauge!("gop_duration_seconds", "stream_id" => id()).set(gop.duration.mean() / 90_000.0);
    gauge!("gop_buffer_gops", "stream_id" => id()).set(figures.gop.cache.gops as f64);
    gauge!("gop_buffer_bytes", "stream_id" => id()).set(figures.gop.cache.bytes as f64);
    let missing = f64::from(u8::from(figures.gop.key_frame_missing));
    gauge!("gop_key_frame_missing", "stream_id" => id()).set(missing);
    let drift = &figures.sync.figures;
    if drift.samples > 0 {
        gauge!("av_sync_drift_seconds", "stream_id" => id()).set(drift.current_us as f64 / 1e6);
        gauge!("av_sync_correction_seconds", "stream_id" => id())
            .set(drift.correction_us as f64 / 1e6);
    }
    if let Some(ppm) = figures.sync.source_drift_ppm {
        gauge!("source_clock_drift_ppm", "stream_id" => id()).set(ppm);
    }
    for indicator in figures
        .tr101290
        .iter()
        .flat_map(|report| &report.indicators)
    {
        counter!("ts_tr101290_errors_total", "stream_id" => id(), "indicator" => indicator.number)
            .absolute(indicator.count);
    }
    let tracks = snapshot.tracks.iter().zip(&figures.tracks);
    for (track, figures) in tracks
        .filter(|(track, _)| !track.gone)
        .take(MAX_TRACK_SERIES)
    {
        let labels = [
            ("stream_id", id()),
            ("track", track.id.to_string()),
            ("codec", track.codec.name().to_owned()),
        ];
        counter!("track_units_total", &labels).absolute(figures.units);
        counter!("track_timestamp_wraps_total", &labels).absolute(figures.wraps);
        counter!("track_timestamp_jumps_total", &labels).absolute(figures.jumps);
        gauge!("track_bitrate", &labels).set(figures.bitrate_bps as f64);
    }
}

/// Whether tracks differ in more than the time code of their last key frame.
pub(crate) fn same_tracks(old: &[Track], new: &[Track]) -> bool {
    let same = |(a, b): (&Track, &Track)| {
        a == b || {
            let mut a = a.clone();
            a.side.timecode = b.side.timecode;
            a == *b
        }
    };
    old.len() == new.len() && old.iter().zip(new).all(same)
}

/// Logs the splice commands that came since `seen` of them had; returns how many there are now.
pub(crate) fn log_splices(entry: &Entry, seen: u64, now: Instant) -> u64 {
    for record in entry
        .snapshot
        .figures
        .splices
        .iter()
        .filter(|r| r.number > seen)
    {
        let (event, out) = match record.splice.command {
            SpliceCommand::Insert { event, out, .. } => (Some(event), Some(out)),
            _ => (record.splice.segmentation.map(|s| s.event), None),
        };
        tracing::info!(
            stream = %entry.snapshot.stream_id,
            command = command(record),
            event,
            out_of_network = out,
            pts = record.splice.pts,
            segmentation_type = record.splice.segmentation.map(|s| s.kind),
            age_ms = now.saturating_since(record.at).as_millis() as u64,
            "splice command"
        );
    }
    entry.snapshot.figures.splices_total
}
