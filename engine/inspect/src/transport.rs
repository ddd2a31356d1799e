//! Files of MPEG-TS packets: the engine's pipeline, fed with payloads at the times that the
//! file's own clock references give.

use mirror_media::ts::file::{PAYLOAD, TimelineScan};
use mirror_media::{Format, Packet, Pipeline};

use crate::Options;
use crate::report::{Carrier, Report};
use crate::source::{Source, Window};
use crate::tracks::{Gatherer, UnitDetail};

pub(crate) fn inspect(
    source: &dyn Source,
    options: &Options,
    report: &mut Report,
) -> Result<(), String> {
    let mut scan = TimelineScan::default();
    let mut window = Window::new(source);
    loop {
        let payload = window.peek(PAYLOAD)?;
        if payload.is_empty() {
            break;
        }
        scan.push(payload);
        let bytes = payload.len();
        window.skip(bytes);
    }
    let mut timeline = scan.finish();
    let mut pipeline = Pipeline::new(Format::MpegTs, crate::limits(options));
    let mut gatherer = Gatherer::new(options);
    let mut window = Window::new(source);
    for slot in 0.. {
        let payload = window.peek(PAYLOAD)?;
        if payload.is_empty() {
            break;
        }
        let bytes = payload.len();
        let offset = slot * PAYLOAD as u64 + bytes as u64;
        let packet = Packet {
            slot,
            arrival: timeline.moment(offset),
            lost_before: 0,
            discontinuity: false,
            timestamp: 0,
            marker: false,
            payload_type: 0,
            payload,
        };
        if pipeline
            .poll_timeout()
            .is_some_and(|due| due <= packet.arrival)
        {
            pipeline.handle_timeout(packet.arrival);
        }
        pipeline.push(packet);
        gatherer.payload(packet.arrival, packet.payload, false);
        window.skip(bytes);
        gatherer.drain(&mut pipeline, |_, _| UnitDetail::default());
    }
    pipeline.finish();
    gatherer.drain(&mut pipeline, |_, _| UnitDetail::default());
    if pipeline.counters().ts_packets == 0 {
        report.error("no MPEG-TS packets were found");
    }
    gatherer.finish(&pipeline, Carrier::Transport, report);
    Ok(())
}
