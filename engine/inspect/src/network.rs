//! Which datagram of a capture belongs to what: SRT conversations, known by their handshakes; RTP
//! sources and their RTCP; transport streams that lie in UDP as they are. Time is the capture's.

use core::net::SocketAddr;
use std::collections::BTreeMap;

use mirror_base::Instant;
use mirror_media::ts::PACKET;
use mirror_media::{Format, Packet, Pipeline};

use crate::capture::fragments::{FragmentCounts, Reassembly};
use crate::capture::link::{Datagram, Seen};
use crate::capture::{Reader, Record};
use crate::report::{CaptureFacts, Carrier, Report};
use crate::rtp::Sources;
use crate::source::Source;
use crate::srt::Conversations;
use crate::tracks::{Gatherer, UnitDetail};
use crate::{Options, recovery};

/// When the capture's first packet comes on our clock: there is time before it.
const START_NS: u64 = 100_000_000_000;
/// Transport streams in UDP that are followed.
const MAX_STREAMS: usize = 64;

/// The moment of a record on our clock.
pub(crate) const fn moment(record: &Record<'_>) -> Instant {
    Instant::from_nanos(START_NS + record.at_ns)
}

/// µs since the capture's first record.
pub(crate) fn micros(now: Instant) -> u64 {
    now.micros_since(Instant::from_nanos(START_NS))
}

/// When a datagram came, and the number of its packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    pub(crate) now: Instant,
    pub(crate) packet: u64,
}

/// A transport stream in UDP datagrams.
struct Plain {
    pipeline: Pipeline,
    gatherer: Gatherer,
    slot: u64,
}

/// What could not be used, by reason.
#[derive(Debug, Default)]
struct Unused {
    cut: u64,
    unknown: u64,
    streams: u64,
    /// Packets without a UDP datagram, and the link type of the last one.
    other: u64,
    link: u32,
}

impl Unused {
    /// Says what is wrong with a capture of so many packets.
    fn complain(&self, records: u64, fragments: FragmentCounts, report: &mut Report) {
        for (count, what) in [
            (
                fragments.incomplete,
                "datagrams came in IP fragments of which some are missing",
            ),
            (
                fragments.malformed,
                "datagrams came in IP fragments that overlap or do not fit together",
            ),
            (self.cut, "datagrams that were not captured to their end"),
            (
                self.streams,
                "datagrams of more transport streams than are followed",
            ),
        ] {
            if count > 0 {
                report.error(format!("{count} {what}"));
            }
        }
        if self.other == records && records > 0 {
            let link = self.link;
            report.error(format!(
                "none of {records} packets holds a UDP datagram (link type {link})"
            ));
        }
    }
}

struct Network<'o> {
    options: &'o Options,
    conversations: Conversations<'o>,
    sources: Sources<'o>,
    plain: BTreeMap<(SocketAddr, SocketAddr), Plain>,
    unused: Unused,
}

impl Network<'_> {
    fn take(&mut self, moment: Moment, datagram: &Datagram<'_>) {
        let now = moment.now;
        if self.conversations.take(moment, datagram) || self.sources.take(moment, datagram) {
            return;
        }
        let (packets, rest) = datagram.payload.as_chunks::<PACKET>();
        let is_ts = rest.is_empty() && !packets.is_empty();
        if is_ts && packets.iter().all(|p| p.first() == Some(&0x47)) {
            return self.transport(now, datagram);
        }
        self.unused.unknown += 1;
    }

    fn transport(&mut self, now: Instant, datagram: &Datagram<'_>) {
        let key = (datagram.from, datagram.to);
        if !self.plain.contains_key(&key) && self.plain.len() >= MAX_STREAMS {
            self.unused.streams += 1;
            return;
        }
        let stream = self.plain.entry(key).or_insert_with(|| Plain {
            pipeline: Pipeline::new(Format::MpegTs, crate::limits(self.options)),
            gatherer: Gatherer::new(self.options),
            slot: 0,
        });
        stream.pipeline.handle_timeout(now);
        stream.pipeline.push(Packet {
            slot: stream.slot,
            arrival: now,
            lost_before: 0,
            discontinuity: false,
            timestamp: 0,
            marker: false,
            payload_type: 0,
            payload: datagram.payload,
        });
        stream.slot += 1;
        stream.gatherer.payload(now, datagram.payload, false);
        stream
            .gatherer
            .drain(&mut stream.pipeline, |_, _| UnitDetail::default());
    }
}

pub(crate) fn inspect(
    source: &dyn Source,
    options: &Options,
    report: &mut Report,
) -> Result<(), String> {
    let mut reader = Reader::new(source)?;
    let mut network = Network {
        options,
        conversations: Conversations::new(options),
        sources: Sources::new(options),
        plain: BTreeMap::new(),
        unused: Unused::default(),
    };
    let mut reassembly = Reassembly::default();
    let mut now = Instant::from_nanos(START_NS);
    let (mut records, mut datagrams): (u64, u64) = (0, 0);
    loop {
        let record = match reader.read() {
            Ok(Some(record)) => record,
            Ok(None) => break,
            Err(text) => {
                report.error(text);
                break;
            }
        };
        now = moment(&record);
        records += 1;
        network.conversations.advance(now);
        network.sources.advance(now);
        match reassembly.datagram(&record) {
            Seen::Datagram(datagram) => {
                datagrams += 1;
                let packet = record.number;
                network.take(Moment { now, packet }, &datagram);
            }
            Seen::Fragment(_) => {}
            Seen::Cut => network.unused.cut += 1,
            Seen::Other => {
                network.unused.other += 1;
                network.unused.link = record.link;
            }
        }
    }
    network.conversations.finish(now, report);
    let links = network.sources.finish(now, report);
    recovery::inspect(source, options, &links, report)?;
    for ((_, to), mut stream) in network.plain {
        stream.pipeline.finish();
        stream
            .gatherer
            .drain(&mut stream.pipeline, |_, _| UnitDetail::default());
        let carrier = Carrier::Udp(to.port());
        stream.gatherer.finish(&stream.pipeline, carrier, report);
    }
    let (unused, fragments) = (network.unused, reassembly.counts());
    report.capture = Some(CaptureFacts {
        packets: records,
        duration_us: micros(now),
        datagrams,
        other_packets: unused.other,
        cut: unused.cut,
        fragments,
    });
    unused.complain(records, fragments, report);
    report.unknown_datagrams = unused.unknown;
    Ok(())
}
