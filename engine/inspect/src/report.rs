//! What was found in a file, and how `mirror-ingest inspect --json` prints it.

use std::collections::BTreeMap;

use mirror_media::codec::jpegxs;
use mirror_media::{Codec, FieldOrder, Segmentation, SpliceCommand, Tr101290, Track};
use serde_json::{Map, Value, json};

use crate::capture::fragments::FragmentCounts;

pub(crate) mod listed;
mod rtp;
mod srt;
mod transport;
mod units;
pub use listed::Listed;
pub(crate) use rtp::rtcp_name;
pub use rtp::{Merged, Recovered, RtcpFacts, RtpFacts, RtpPacketFacts, ShapeFacts};
pub use srt::{
    AckFacts, DirectionFacts, ExtensionFacts, HandshakeFacts, NakFacts, Outcome, Spoken, SrtFacts,
    WireFacts,
};
pub use transport::{
    Marks, PcrFacts, PesFacts, PidFacts, ProgramFacts, SectionFacts, TableFacts, TransportFacts,
};
pub use units::{UnitFacts, Units};

/// What a file is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A capture of network traffic.
    Pcap,
    /// A transport stream.
    MpegTs,
    /// H.264, Annex B.
    H264,
    /// HEVC, Annex B.
    H265,
    /// MPEG-2 video.
    Mpeg2Video,
    /// AV1: OBUs one after another, or with lengths (AV1, Annex B).
    Av1,
    /// AV1 in IVF.
    Ivf,
    /// JPEG XS codestreams.
    JpegXs,
    /// KLV units.
    Klv,
}

impl Kind {
    /// As it is printed.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Pcap => "pcap",
            Kind::MpegTs => "mpegts",
            Kind::H264 => "h264",
            Kind::H265 => "h265",
            Kind::Mpeg2Video => "mpeg2video",
            Kind::Av1 | Kind::Ivf => "av1",
            Kind::JpegXs => "jpegxs",
            Kind::Klv => "klv",
        }
    }
}

/// A capture as such.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CaptureFacts {
    /// Packets in the file.
    pub packets: u64,
    /// From the first one to the last, µs.
    pub duration_us: u64,
    /// UDP datagrams, those put together of fragments among them.
    pub datagrams: u64,
    /// Packets that hold no UDP.
    pub other_packets: u64,
    /// Datagrams that were not captured to their end.
    pub cut: u64,
    /// IP fragments.
    pub fragments: FragmentCounts,
}

impl CaptureFacts {
    fn json(&self) -> Value {
        json!({
            "packets": self.packets,
            "duration_s": listed::seconds(self.duration_us),
            "datagrams": self.datagrams,
            "other_packets": self.other_packets,
            "cut_datagrams": self.cut,
            "ip_fragments": self.fragments.fragments,
            "reassembled": self.fragments.assembled,
            "incomplete": self.fragments.incomplete,
            "malformed": self.fragments.malformed,
        })
    }
}

/// Everything that was found in a file.
#[derive(Clone, Debug)]
pub struct Report {
    /// Its name.
    pub file: String,
    /// What it is.
    pub kind: Kind,
    /// The capture, if it is one.
    pub capture: Option<CaptureFacts>,
    /// SRT connections, in the order of their first datagrams.
    pub srt: Vec<SrtFacts>,
    /// RTP sources, likewise.
    pub rtp: Vec<RtpFacts>,
    /// RTCP that names no source of the capture, by type.
    pub rtcp: BTreeMap<&'static str, u64>,
    /// RTCP packets in order, if that was asked for.
    pub rtcp_packets: Option<Listed<RtcpFacts>>,
    /// RTP and RTCP packets whose headers are malformed.
    pub malformed_rtp: u64,
    /// Packets of what looked like RTP and never proved to be a source (RFC 3550, A.1).
    pub unproven_packets: u64,
    /// UDP datagrams that are of no kind known here.
    pub unknown_datagrams: u64,
    /// Elementary streams.
    pub tracks: Vec<TrackFacts>,
    /// Transport streams.
    pub transports: Vec<TransportFacts>,
    /// Splice commands (SCTE 35), in order.
    pub scte35: Vec<SpliceFacts>,
    /// KLV units: PID or SSRC (0 in a file of KLV), and how many.
    pub klv: Vec<(u32, u64)>,
    /// What is wrong with the file or could not be read, for people.
    pub errors: Vec<String>,
}

/// Errors that are kept; more of them are only counted.
const MAX_ERRORS: usize = 100;

impl Report {
    pub(crate) fn new(file: &str, kind: Kind) -> Self {
        Report {
            file: file.to_owned(),
            kind,
            capture: None,
            srt: Vec::new(),
            rtp: Vec::new(),
            rtcp: BTreeMap::new(),
            rtcp_packets: None,
            malformed_rtp: 0,
            unproven_packets: 0,
            unknown_datagrams: 0,
            tracks: Vec::new(),
            transports: Vec::new(),
            scte35: Vec::new(),
            klv: Vec::new(),
            errors: Vec::new(),
        }
    }

    pub(crate) fn error(&mut self, text: impl Into<String>) {
        if self.errors.len() < MAX_ERRORS {
            self.errors.push(text.into());
        }
    }

    /// What is wrong with the streams, in sentences for people.
    pub fn findings(&self) -> Vec<String> {
        crate::findings::findings(self)
    }

    /// What TR 101 290 counts in all transport streams; `None` where there are none.
    pub fn tr101290(&self) -> Option<Tr101290> {
        let mut measured = self.transports.iter().map(|t| &t.tr101290);
        let mut sum = measured.next()?.clone();
        for one in measured {
            for (all, one) in sum.indicators.iter_mut().zip(&one.indicators) {
                all.count += one.count;
                all.pid = one.pid.or(all.pid);
                all.last = one.last.max(all.last);
            }
            sum.pcr_repetition += one.pcr_repetition;
            sum.pcr_discontinuity += one.pcr_discontinuity;
        }
        Some(sum)
    }

    /// The object that `--json` prints.
    pub fn json(&self) -> Value {
        let mut facts = self.general();
        if let Some(packets) = &self.rtcp_packets
            && let Value::Object(map) = &mut facts
        {
            packets.put("rtcp_packets", RtcpFacts::json, &mut |key, value| {
                map.insert(key.to_owned(), value);
            });
        }
        facts
    }

    fn general(&self) -> Value {
        fn list<T>(of: &[T], each: impl Fn(&T) -> Value) -> Vec<Value> {
            of.iter().map(each).collect()
        }
        let klv = list(&self.klv, |(id, units)| json!({"id": id, "units": units}));
        json!({
            "file": self.file,
            "kind": self.kind.name(),
            "capture": self.capture.as_ref().map(CaptureFacts::json),
            "srt": list(&self.srt, SrtFacts::json),
            "rtp": list(&self.rtp, RtpFacts::json),
            "rtcp": self.rtcp,
            "malformed_rtp": self.malformed_rtp,
            "unproven_packets": self.unproven_packets,
            "unknown_datagrams": self.unknown_datagrams,
            "tracks": list(&self.tracks, TrackFacts::json),
            "transports": list(&self.transports, TransportFacts::json),
            "tr101290": transport::indicators(self.tr101290().as_ref()),
            "scte35": list(&self.scte35, SpliceFacts::json),
            "klv": klv,
            "findings": self.findings(),
            "errors": self.errors,
        })
    }
}

/// What an elementary stream lies in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Carrier {
    /// The file itself is the elementary stream.
    File,
    /// A transport stream in a file.
    Transport,
    /// A transport stream in UDP datagrams, to this port.
    Udp(u16),
    /// A transport stream in an SRT connection: its index in [`Report::srt`].
    Srt(usize),
    /// RTP packets: port and SSRC.
    Rtp(u16, u32),
    /// A transport stream in RTP packets: port and SSRC.
    RtpTransport(u16, u32),
}

impl Carrier {
    /// What names it in JSON; `pid` for those that lie in a transport stream.
    fn put(self, pid: Option<u32>, mut put: impl FnMut(&str, Value)) {
        match self {
            Carrier::File | Carrier::Transport => {}
            Carrier::Udp(port) => put("port", json!(port)),
            Carrier::Srt(index) => put("srt", json!(index)),
            Carrier::Rtp(port, ssrc) | Carrier::RtpTransport(port, ssrc) => {
                put("port", json!(port));
                put("ssrc", json!(ssrc));
            }
        }
        if let (Some(pid), false) = (pid, matches!(self, Carrier::File | Carrier::Rtp(..))) {
            put("pid", json!(pid));
        }
    }
}

/// An elementary stream.
#[derive(Clone, Debug)]
pub struct TrackFacts {
    /// What it lies in.
    pub carrier: Carrier,
    /// What its bits tell.
    pub track: Track,
    /// Units that came.
    pub access_units: u64,
    /// Of these, such as lack something.
    pub damaged: u64,
    /// Access units that refer to pictures which never came.
    pub references_missing: u64,
    /// Video: a letter for each unit in decoding order: I, P, B; `?` where it is not known.
    pub frame_types: String,
    /// Indexes of the units at which decoding can start.
    pub key_frames: Vec<u64>,
    /// Groups of pictures.
    pub gops: GopFacts,
    /// Pictures that follow others in decoding order that they precede in display order, at
    /// most; what the stream promises, or what was seen.
    pub reorder_depth: u8,
    /// Presentation time of the first unit in decoding order, 90 kHz, as it is on the wire.
    pub first_pts: Option<i64>,
    /// That of the last one.
    pub last_pts: Option<i64>,
    /// Times that the 33-bit (RTP: 32-bit) clock began afresh.
    pub pts_wraps: u64,
    /// Bytes of the elementary stream.
    pub bytes: u64,
    /// NAL units (MPEG-2 video: start codes) or OBUs by type, where the bytes were looked at:
    /// elementary streams in files and in RTP.
    pub unit_types: BTreeMap<u8, u64>,
    /// AV1 frames: coded, of these hidden, and shown again.
    pub av1_frames: Option<[u64; 3]>,
    /// JPEG XS files: what the last codestream's header says.
    pub jpegxs: Option<jpegxs::Header>,
    /// Every unit, if that was asked for.
    pub units: Option<Units>,
}

/// Groups of pictures: what begins with a key frame and ends before the next.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct GopFacts {
    /// Of these, such as have pictures that refer to the group before.
    pub open: u64,
    /// How many.
    pub count: u64,
    /// Units of each.
    pub sizes: Vec<u32>,
}

fn chroma(format: u8) -> &'static str {
    match format {
        0 => "4:0:0",
        2 => "4:2:2",
        3 => "4:4:4",
        _ => "4:2:0",
    }
}

impl TrackFacts {
    fn side(&self) -> (Vec<&'static str>, Vec<&'static str>, Option<&'static str>) {
        let side = &self.track.side;
        let named = |list: &[(bool, &'static str)]| -> Vec<&'static str> {
            list.iter().filter(|(is, _)| *is).map(|(_, n)| *n).collect()
        };
        let sei = named(&[
            (side.recovery_point, "recovery_point"),
            (side.timecode.is_some(), "timecode"),
            (side.mastering.is_some(), "mastering_display"),
            (side.light.is_some(), "content_light"),
            (side.hdr10_plus, "hdr10_plus"),
        ]);
        let captions = named(&[(side.cea608, "cea608"), (side.cea708, "cea708")]);
        let hdr = match self.track.colour.transfer {
            _ if side.hdr10_plus => Some("HDR10+"),
            16 if side.mastering.is_some() || side.light.is_some() => Some("HDR10"),
            16 => Some("PQ"),
            18 => Some("HLG"),
            _ => None,
        };
        (sei, captions, hdr)
    }

    /// Colour, and what SEI messages and metadata say of the display it was made on.
    fn put_colour(&self, put: &mut impl FnMut(&str, Value)) {
        let (colour, side) = (&self.track.colour, &self.track.side);
        put(
            "colour",
            json!({
                "primaries": colour.primaries,
                "transfer": colour.transfer,
                "matrix": colour.matrix,
                "full_range": colour.full_range,
            }),
        );
        let mastering = side.mastering.map(|m| {
            json!({
                "primaries_gbr": m.primaries,
                "white_point": m.white_point,
                "max_luminance": f64::from(m.max_luminance) / 10_000.0,
                "min_luminance": f64::from(m.min_luminance) / 10_000.0,
            })
        });
        put("mastering_display", json!(mastering));
        let light = side.light;
        let light = light.map(|l| json!({"max_cll": l.max, "max_fall": l.max_average}));
        put("content_light", json!(light));
    }

    /// What only files of AV1 and JPEG XS tell.
    fn put_files(&self, put: &mut impl FnMut(&str, Value)) {
        if let Some([coded, hidden, again]) = self.av1_frames {
            put("coded_frames", json!(coded));
            put("hidden_frames", json!(hidden));
            put("shown_again", json!(again));
        }
        if let Some(header) = &self.jpegxs {
            let facts = json!({
                "profile_code": header.profile,
                "level_code": header.level,
                "precinct_width": header.precinct_width,
                "slice_height": header.slice_height,
                "components": header.components,
            });
            put("jpegxs", facts);
        }
    }

    fn json(&self) -> Value {
        let track = &self.track;
        let (video, audio) = (track.codec.is_video(), track.codec.is_audio());
        let (sei, captions, hdr) = self.side();
        let known = |value: u32| (value > 0).then_some(value);
        let (num, den) = track.frame_rate;
        let rate = (num > 0 && den > 0).then(|| f64::from(num) / f64::from(den));
        let mut map = Map::new();
        let mut put = |key: &str, value: Value| {
            map.insert(key.to_owned(), value);
        };
        self.carrier.put(Some(track.id), &mut put);
        put("program", json!(known(track.program.into())));
        put("stream_type", json!(known(track.stream_type.into())));
        put("codec", json!(track.codec.name()));
        put(
            "profile",
            json!((!track.profile.is_empty()).then_some(track.profile)),
        );
        // seq_level_idx 0 is AV1's level 2.0.
        let has_level = track.codec == Codec::Av1 && track.width > 0;
        let level = known(track.level.into()).or(has_level.then_some(0));
        put("level", json!(level));
        put("width", json!(known(track.width)));
        put("height", json!(known(track.height)));
        put("frame_rate", json!(rate));
        put(
            "frame_rate_fraction",
            json!(rate.map(|_| format!("{num}/{den}"))),
        );
        put("bit_depth", json!(known(track.bit_depth.into())));
        let chroma = (video && track.width > 0).then(|| chroma(track.chroma_format));
        put("chroma", json!(chroma));
        put("interlaced", json!(video.then_some(track.interlaced)));
        put(
            "field_order",
            json!(track.field_order.map(FieldOrder::name)),
        );
        put("sample_rate", json!(known(track.sample_rate)));
        put(
            "channels",
            json!(audio.then_some(track.channels).filter(|c| *c > 0)),
        );
        put("access_units", json!(self.access_units));
        put("damaged", json!(self.damaged));
        put("references_missing", json!(self.references_missing));
        put("frame_types", json!(self.frame_types));
        put("key_frames", json!(self.key_frames));
        let gops = &self.gops;
        put(
            "gops",
            json!({"count": gops.count, "open": gops.open, "sizes": gops.sizes}),
        );
        put("reorder_depth", json!(video.then_some(self.reorder_depth)));
        put("first_pts", json!(self.first_pts));
        put("last_pts", json!(self.last_pts));
        put("pts_wraps", json!(self.pts_wraps));
        put("bytes", json!(self.bytes));
        put("sei", json!(sei));
        put("captions", json!(captions));
        put("hdr", json!(hdr));
        if video {
            self.put_colour(&mut put);
        }
        let language = (track.language != [0; 3])
            .then(|| String::from_utf8_lossy(&track.language).into_owned());
        put("language", json!(language));
        put("scrambled", json!(track.scrambled));
        put(
            "unit_types",
            json!((!self.unit_types.is_empty()).then_some(&self.unit_types)),
        );
        self.put_files(&mut put);
        if let Some(units) = &self.units {
            put("units", units.json());
            put("units_left_out", json!(units.left_out));
        }
        Value::Object(map)
    }
}

/// A splice command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SpliceFacts {
    /// PID.
    pub pid: u32,
    /// What is asked for.
    pub command: SpliceCommand,
    /// When, as it is on the wire with `pts_adjustment` added; `None`: at once.
    pub pts: Option<i64>,
    /// The first segmentation_descriptor.
    pub segmentation: Option<Segmentation>,
}

impl SpliceFacts {
    fn json(&self) -> Value {
        let name = match self.command {
            SpliceCommand::Null => "splice_null",
            SpliceCommand::Insert { .. } => "splice_insert",
            SpliceCommand::TimeSignal => "time_signal",
            SpliceCommand::Other(0x04) => "splice_schedule",
            SpliceCommand::Other(0x07) => "bandwidth_reservation",
            SpliceCommand::Other(0xFF) => "private_command",
            SpliceCommand::Other(_) => "other",
        };
        let mut facts = Map::new();
        let mut put = |key: &str, value: Value| {
            facts.insert(key.to_owned(), value);
        };
        put("pid", json!(self.pid));
        put("command", json!(name));
        put("pts", json!(self.pts));
        if let SpliceCommand::Insert {
            event,
            out,
            cancel,
            duration,
        } = self.command
        {
            put("event_id", json!(event));
            put("out_of_network", json!(out));
            put("cancel", json!(cancel));
            put("duration", json!(duration));
        }
        if let SpliceCommand::Other(kind) = self.command {
            put("command_type", json!(kind));
        }
        if let Some(segmentation) = &self.segmentation {
            put(
                "segmentation",
                json!({
                    "event_id": segmentation.event,
                    "cancel": segmentation.cancel,
                    "type_id": segmentation.kind,
                    "duration": segmentation.duration,
                    "upid_type": segmentation.upid_type,
                    "segment": segmentation.segment.0,
                    "segments_expected": segmentation.segment.1,
                }),
            );
        }
        Value::Object(facts)
    }
}
