//! The crate mpeg2ts-reader at its usual work: PAT, PMT, PES packets with their times, payload
//! handed on without a copy.

use std::cell::Cell;
use std::fs::File;

use memchr::memmem::Finder;
use mpeg2ts_reader::demultiplex::{
    Demultiplex, FilterRequest, NullPacketFilter, PatPacketFilter, PmtPacketFilter,
};
use mpeg2ts_reader::pes::{
    ElementaryStreamConsumer, PesContents, PesHeader, PesPacketFilter, PtsDts,
};
use mpeg2ts_reader::{demux_context, packet_filter_switch, psi};

use crate::{Found, pieces};

thread_local! {
    static UNITS: Cell<u64> = const { Cell::new(0) };
    static TIMED: Cell<u64> = const { Cell::new(0) };
    static CODES: Cell<u64> = const { Cell::new(0) };
    static SEARCHES: Cell<bool> = const { Cell::new(false) };
}

packet_filter_switch! {
    Switch<Context> {
        Pes: PesPacketFilter<Context, Consumer>,
        Pat: PatPacketFilter<Context>,
        Pmt: PmtPacketFilter<Context>,
        Null: NullPacketFilter<Context>,
    }
}

demux_context!(Context, Switch);

impl Context {
    fn do_construct(&mut self, request: FilterRequest<'_, '_>) -> Switch {
        match request {
            FilterRequest::ByPid(psi::pat::PAT_PID) => Switch::Pat(PatPacketFilter::default()),
            FilterRequest::ByStream { .. } => {
                let finder = SEARCHES.get().then(|| Finder::new(&[0, 0, 1]));
                let (timed, codes) = (0, 0);
                let consumer = Consumer {
                    finder,
                    units: 0,
                    timed,
                    codes,
                };
                Switch::Pes(PesPacketFilter::new(consumer))
            }
            FilterRequest::Pmt {
                pid,
                program_number,
            } => Switch::Pmt(PmtPacketFilter::new(pid, program_number)),
            FilterRequest::ByPid(_) | FilterRequest::Nit { .. } => {
                Switch::Null(NullPacketFilter::default())
            }
        }
    }
}

/// Counts; with a finder also the start codes that lie whole in one packet.
struct Consumer {
    finder: Option<Finder<'static>>,
    units: u64,
    timed: u64,
    codes: u64,
}

impl Consumer {
    fn payload(&mut self, data: &[u8]) {
        if let Some(finder) = &self.finder {
            self.codes += finder.find_iter(data).count() as u64;
        }
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        UNITS.set(UNITS.get() + self.units);
        TIMED.set(TIMED.get() + self.timed);
        CODES.set(CODES.get() + self.codes);
    }
}

impl ElementaryStreamConsumer<Context> for Consumer {
    fn start_stream(&mut self, _: &mut Context) {}

    fn begin_packet(&mut self, _: &mut Context, header: PesHeader<'_>) {
        self.units += 1;
        match header.contents() {
            PesContents::Parsed(Some(parsed)) => {
                let times = parsed.pts_dts();
                let has_time = matches!(times, Ok(PtsDts::PtsOnly(Ok(_)) | PtsDts::Both { .. }));
                self.timed += u64::from(has_time);
                self.payload(parsed.payload());
            }
            PesContents::Parsed(None) => {}
            PesContents::Payload(data) => self.payload(data),
        }
    }

    fn continue_packet(&mut self, _: &mut Context, data: &[u8]) {
        self.payload(data);
    }

    fn end_packet(&mut self, _: &mut Context) {}

    fn continuity_error(&mut self, _: &mut Context) {}
}

/// Runs it over a file; `searches` for start codes in the payloads as well.
pub(crate) fn demultiplex(file: &mut File, searches: bool) -> Found {
    SEARCHES.set(searches);
    for cell in [&UNITS, &TIMED, &CODES] {
        cell.set(0);
    }
    let mut context = Context::new();
    let mut demultiplexer = Demultiplex::new(&mut context);
    pieces(file, |piece| demultiplexer.push(&mut context, piece));
    drop(demultiplexer);
    Found {
        units: UNITS.get(),
        timed: TIMED.get(),
        groups: CODES.get(),
    }
}
