//! Loss that senders repaired: retransmissions (RFC 4588), FEC (SMPTE ST 2022-1), a second path
//! (SMPTE ST 2022-7). No signalling lies in a capture, so the bits tell which source repairs
//! which: [`Suspect`] looks at every packet, [`Links`] draws the conclusions, and a second reading
//! of the file runs each group through a configured session of our own.

use core::net::SocketAddr;
use core::time::Duration;

use mirror_base::Instant;
use mirror_rtp::media::{FecLimits, Origin, PayloadType, Role, RtxType};
use mirror_rtp::{Header, Media, MediaConfig, is_rtcp};

use crate::Options;
use crate::capture::Reader;
use crate::capture::fragments::Reassembly;
use crate::capture::link::Seen;
use crate::network::moment;
use crate::report::{Carrier, Merged, Recovered, Report};
use crate::rtp::{Depacketiser, hint};
use crate::source::Source;

/// How long a repair may take: the longest matrix or path difference that is met.
const JITTER_BUFFER: Duration = Duration::from_millis(1000);
const MAX_GROUPS: usize = 64;
const MAX_CHUNKS: usize = 4096;
/// Bytes of the FEC header of ST 2022-1.
const FEC_HEADER: usize = 16;

/// What the packets of a source look like.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Suspect {
    packets: u64,
    /// Lowest and highest sequence number, counted from the first.
    first: u16,
    span: (i32, i32),
    /// Packets that may be retransmissions: the number that they would stand for lies within so
    /// much of the first such number.
    original: Option<u16>,
    originals: u64,
    original_span: (i32, i32),
    /// Packets that have an FEC header.
    fec: u64,
}

fn widen(span: &mut (i32, i32), from: u16, to: u16) {
    let distance = i32::from(to.wrapping_sub(from) as i16);
    *span = (span.0.min(distance), span.1.max(distance));
}

impl Suspect {
    /// One more packet.
    pub(crate) fn look(&mut self, header: &Header, packet: &[u8]) {
        let range = usize::from(header.payload_offset)..usize::from(header.payload_end);
        let payload = packet.get(range).unwrap_or_default();
        if self.packets == 0 {
            self.first = header.sequence;
        }
        self.packets += 1;
        widen(&mut self.span, self.first, header.sequence);
        if let Some(&[high, low]) = payload.first_chunk::<2>() {
            let number = u16::from_be_bytes([high, low]);
            let first = *self.original.get_or_insert(number);
            self.originals += 1;
            widen(&mut self.original_span, first, number);
        }
        self.fec += u64::from(is_fec(payload));
    }
}

/// Whether a payload begins with the header of ST 2022-1 (section 8.4): extension bit, no mask,
/// XOR, an offset and a number of packets.
fn is_fec(payload: &[u8]) -> bool {
    let Some(header) = payload.first_chunk::<FEC_HEADER>() else {
        return false;
    };
    let [_, _, _, _, e, m0, m1, m2, _, _, _, _, kind, offset, na, _] = *header;
    e & 0x80 != 0 && [m0, m1, m2] == [0; 3] && kind & 0x38 == 0 && offset > 0 && na > 0
}

struct Known {
    to: SocketAddr,
    ssrc: u32,
    payload_type: u8,
    suspect: Suspect,
}

/// The sources of a capture.
#[derive(Default)]
pub(crate) struct Links {
    sources: Vec<Known>,
}

/// Sources that bring the same media.
struct Group {
    /// Indexes into the sources.
    media: usize,
    second: Option<usize>,
    rtx: Option<usize>,
    column: Option<usize>,
    row: Option<usize>,
}

impl Links {
    /// One more source, in the order of the report.
    pub(crate) fn add(&mut self, to: SocketAddr, ssrc: u32, payload_type: u8, suspect: Suspect) {
        self.sources.push(Known {
            to,
            ssrc,
            payload_type,
            suspect,
        });
    }

    fn find(&self, wanted: impl Fn(&Known) -> bool) -> Option<usize> {
        self.sources.iter().position(wanted)
    }

    fn is_fec(known: &Known) -> bool {
        known.suspect.packets > 0 && known.suspect.fec == known.suspect.packets
    }

    fn groups(&self) -> Vec<Group> {
        let mut groups = Vec::new();
        for (index, media) in self.sources.iter().enumerate() {
            if groups.len() >= MAX_GROUPS {
                break;
            }
            let fec = |distance: u16| {
                self.find(|s| {
                    Self::is_fec(s)
                        && s.to.ip() == media.to.ip()
                        && media.to.port().checked_add(distance) == Some(s.to.port())
                })
            };
            let group = Group {
                media: index,
                second: self.find(|s| s.repeats(media)),
                rtx: self.find(|s| s.retransmits(media)),
                column: fec(2),
                row: fec(4),
            };
            let is_first = group.second.is_none_or(|second| second > index);
            let repairs = [group.second, group.rtx, group.column, group.row];
            if repairs.iter().any(Option::is_some) && is_first && !Self::is_fec(media) {
                groups.push(group);
            }
        }
        groups
    }
}

impl Known {
    /// Whether it brings the same packets over another path.
    fn repeats(&self, media: &Known) -> bool {
        let apart = i32::from(self.suspect.first.wrapping_sub(media.suspect.first) as i16);
        self.to != media.to
            && (self.ssrc, self.payload_type) == (media.ssrc, media.payload_type)
            && apart.unsigned_abs() < 1000
            && !Links::is_fec(self)
    }

    /// Whether each of its packets begins with a number of the other's.
    fn retransmits(&self, media: &Known) -> bool {
        let (mine, theirs) = (&self.suspect, &media.suspect);
        let Some(original) = mine.original else {
            return false;
        };
        let from = i32::from(original.wrapping_sub(theirs.first) as i16);
        let span = (from + mine.original_span.0, from + mine.original_span.1);
        self.to == media.to
            && self.ssrc != media.ssrc
            && self.payload_type != media.payload_type
            && mine.originals == mine.packets
            && mine.packets < theirs.packets
            && span.0 >= theirs.span.0
            && span.1 <= theirs.span.1
    }
}

/// A group in the making.
struct Run<'l> {
    group: Group,
    links: &'l Links,
    media: Media,
    depacketiser: Depacketiser,
    due: Instant,
}

impl Run<'_> {
    fn place(&self, to: SocketAddr, ssrc: u32) -> Option<(u8, Role)> {
        let is = |index: Option<usize>| {
            let known = index.and_then(|i| self.links.sources.get(i));
            known.is_some_and(|k| (k.to, k.ssrc) == (to, ssrc))
        };
        let g = &self.group;
        if is(Some(g.media)) || is(g.rtx) {
            Some((0, Role::Media))
        } else if is(g.second) {
            Some((1, Role::Media))
        } else if is(g.column) {
            Some((0, Role::FecColumn))
        } else if is(g.row) {
            Some((0, Role::FecRow))
        } else {
            None
        }
    }

    fn drain(&mut self, now: Instant) {
        while let Some(delivery) = self.media.poll_delivery(now, &self.depacketiser.ring) {
            self.depacketiser.push(&delivery);
        }
        self.depacketiser.release(self.media.release_index());
        while self.media.poll_event().is_some() {}
        self.due = self.media.poll_timeout().unwrap_or(Instant::FAR_FUTURE);
    }

    fn advance(&mut self, until: Instant) {
        while self.due <= until {
            let due = self.due;
            self.media.handle_timeout(due);
            self.drain(due);
            if self.due <= due {
                break;
            }
        }
    }
}

fn start<'l>(group: Group, links: &'l Links, options: &Options) -> Option<Run<'l>> {
    let media = links.sources.get(group.media)?;
    let (named, rate) = hint(media.payload_type, options);
    let usual = named.map_or(90_000, |hint| hint.format.clock_rate());
    let rtx = group.rtx.and_then(|index| links.sources.get(index));
    let config = MediaConfig {
        payload_types: vec![PayloadType {
            number: media.payload_type,
            clock_rate: if rate > 0 { rate } else { usual },
        }],
        rtx: rtx
            .iter()
            .map(|rtx| RtxType {
                number: rtx.payload_type,
                apt: media.payload_type,
            })
            .collect(),
        rtx_ssrcs: rtx.iter().map(|rtx| (media.ssrc, rtx.ssrc)).collect(),
        fec: (group.column.is_some() || group.row.is_some()).then(FecLimits::default),
        legs: 1 + u8::from(group.second.is_some()),
        ssrcs: vec![media.ssrc],
        jitter_buffer: JITTER_BUFFER,
        session_timeout: Duration::from_secs(3600),
        ..MediaConfig::default()
    };
    Some(Run {
        media: Media::new(Instant::ZERO, config, 0),
        depacketiser: Depacketiser::new(media.ssrc, media.payload_type, options),
        due: Instant::FAR_FUTURE,
        links,
        group,
    })
}

/// Reads the file once more, if sources repair each other, and adds to the report what came of
/// it.
pub(crate) fn inspect(
    source: &dyn Source,
    options: &Options,
    links: &Links,
    report: &mut Report,
) -> Result<(), String> {
    let groups = links.groups().into_iter();
    let mut runs: Vec<Run<'_>> = groups.filter_map(|g| start(g, links, options)).collect();
    if runs.is_empty() {
        return Ok(());
    }
    let mut budget = MAX_CHUNKS;
    let mut reader = Reader::new(source)?;
    let mut reassembly = Reassembly::default();
    let mut now = Instant::ZERO;
    // What is wrong with the file is said already.
    while let Ok(Some(record)) = reader.read() {
        now = moment(&record);
        for run in &mut runs {
            run.advance(now);
        }
        let Seen::Datagram(found) = reassembly.datagram(&record) else {
            continue;
        };
        if is_rtcp(found.payload) {
            continue;
        }
        let Ok(header) = Header::parse(found.payload) else {
            continue;
        };
        for run in &mut runs {
            let Some((leg, role)) = run.place(found.to, header.ssrc) else {
                continue;
            };
            run.depacketiser.fit(found.payload.len(), &mut budget);
            let origin = Origin {
                leg,
                role,
                from: found.from,
            };
            let ring = &mut run.depacketiser.ring;
            // What is refused shows in the figures.
            let _ = run.media.handle_rtp(now, now, &origin, found.payload, ring);
            run.drain(now);
        }
    }
    for mut run in runs {
        let end = now + 2 * JITTER_BUFFER;
        run.advance(end);
        run.media.close(end);
        run.drain(end);
        run.depacketiser.finish();
        conclude(run, report);
    }
    Ok(())
}

fn conclude(run: Run<'_>, report: &mut Report) {
    let statistics = run.media.statistics();
    let recovered = Recovered {
        rtx: statistics.recovered_rtx,
        fec: statistics.recovered_fec,
        second_path: statistics.recovered_2022_7,
    };
    let group = &run.group;
    for (index, codec) in [
        (group.rtx, "rtx"),
        (group.column, "fec-column"),
        (group.row, "fec-row"),
    ] {
        let helper = index.and_then(|i| report.rtp.get_mut(i));
        let Some(helper) = helper else { continue };
        helper.codec = codec;
        helper.access_units = 0;
        let (port, ssrc) = (helper.to.port(), helper.ssrc);
        let is_its = |carrier: Carrier| {
            carrier == Carrier::Rtp(port, ssrc) || carrier == Carrier::RtpTransport(port, ssrc)
        };
        report.tracks.retain(|track| !is_its(track.carrier));
    }
    // Its units are gathered apart: the report has the track already, as it came.
    let mut apart = Report::new("", report.kind);
    let Some(media) = report.rtp.get_mut(group.media) else {
        return;
    };
    let carrier = Carrier::Rtp(media.to.port(), media.ssrc);
    let depacketiser = run.depacketiser;
    let (elementary_bytes, payload_sha256, bare_sha256) = depacketiser.elementary();
    let (unit_types, shape) = (depacketiser.types(), depacketiser.shape.facts());
    depacketiser
        .gatherer
        .finish(&depacketiser.pipeline, carrier, &mut apart);
    media.recovered = recovered;
    media.merged = Some(Merged {
        distinct: statistics.source.packets_unique,
        lost: statistics.source.packets_dropped,
        access_units: apart.tracks.iter().map(|t| t.access_units).sum(),
        damaged: apart.tracks.iter().map(|t| t.damaged).sum(),
        unit_types,
        shape,
        payload_bytes: depacketiser.payload_bytes,
        elementary_bytes,
        payload_sha256,
        bare_sha256,
    });
}
