//! Measures a transport stream by TR 101 290 (see [`super::tr101290`]). The demultiplexer tells
//! it what is out of the ordinary, and each tenth of a second it looks for what has not come.
//! An ordinary packet costs nothing: whether a PID was seen shows in a mark that
//! [`Monitor::check`] puts into its continuity counter and any packet wipes off.

use core::time::Duration;

use mirror_base::Instant;

use super::demux::{Body, Demux, NO_CONTINUITY, UNSEEN};
use super::pcr::ticks_of;
use super::psi::{self, Broken, Section};
use super::tr101290::{Check, Tr101290, Tr101290Limits};

/// How often gaps are looked for.
const INTERVAL: Duration = Duration::from_millis(100);
/// When nothing came for so long, it is not the multiplexer's fault that tables did not: gaps
/// are measured from then on.
const STALL: Duration = Duration::from_millis(350);
/// Arrival jitter that a missing PCR is given before it counts without a next one.
const PCR_JITTER: Duration = Duration::from_millis(400);
/// Scrambled packets without a CAT count once in so long; also the time that a CAT is given.
const CAT_INTERVAL: Duration = Duration::from_millis(500);
const PIDS: usize = 8192;
/// Service information whose CRCs are checked (2.2): CAT, NIT, SDT and BAT, EIT, TDT and TOT.
pub(super) const SI_PIDS: [u16; 5] = [0x01, 0x10, 0x11, 0x12, 0x14];
const CAT_PID: u16 = 0x01;
const TOT: u8 = 0x73;

/// What is watched of a listed PID.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Watch {
    /// When its table last came, or was first waited for.
    table: Instant,
    table_late: bool,
    /// When a packet of it was last seen.
    seen: Instant,
    absent: bool,
    /// The program's clock at the last PTS.
    pts: Option<u64>,
    pts_late: bool,
}

/// See the module's page.
#[derive(Debug)]
pub(super) struct Monitor {
    pub(super) report: Tr101290,
    pub(super) limits: Tr101290Limits,
    /// The newest arrival.
    pub(super) now: Instant,
    begun: Option<Instant>,
    /// By place in the PID table.
    watch: Vec<Watch>,
    cat: bool,
    /// A scrambled packet that has not been judged, and when the last one counted.
    scrambled: Option<u16>,
    scrambled_counted: Option<Instant>,
    /// Continuity counters of PIDs that no program names; `NO_CONTINUITY` before the first.
    unlisted: Box<[u8; PIDS]>,
}

impl Monitor {
    pub(super) fn new(limits: Tr101290Limits) -> Self {
        Monitor {
            report: Tr101290::default(),
            limits,
            now: Instant::ZERO,
            begun: None,
            watch: Vec::new(),
            cat: false,
            scrambled: None,
            scrambled_counted: None,
            unlisted: Box::new([NO_CONTINUITY; PIDS]),
        }
    }

    pub(super) fn count(&mut self, check: Check, pid: u16) {
        self.report.count(check, 1, Some(pid), self.now);
    }

    /// What the framer lost.
    pub(super) fn framing(&mut self, sync_errors: u64, sync_losses: u64) {
        if sync_errors > 0 {
            self.report
                .count(Check::SyncByte, sync_errors, None, self.now);
        }
        if sync_losses > 0 {
            self.report
                .count(Check::SyncLoss, sync_losses, None, self.now);
        }
    }

    /// Another source: what was waited for is waited for anew.
    pub(super) fn restart(&mut self) {
        self.begun = None;
        self.cat = false;
        self.scrambled = None;
        self.unlisted.fill(NO_CONTINUITY);
    }

    /// The PID at `index` is another one now.
    pub(super) fn listed(&mut self, index: usize) {
        if self.watch.len() <= index {
            self.watch.resize(index + 1, Watch::default());
        }
        if let Some(watch) = self.watch.get_mut(index) {
            *watch = Watch {
                table: self.now,
                seen: self.now,
                ..Watch::default()
            };
        }
    }

    /// A PMT names the PID (again): its absence is measured from now on.
    pub(super) fn named(&mut self, index: usize) {
        if let Some(watch) = self.watch.get_mut(index) {
            watch.seen = self.now;
            watch.absent = false;
        }
    }

    /// A packet of a PID that is not listed (2.4.3.3).
    pub(super) fn unlisted(&mut self, pid: u16, continuity: u8, flagged: bool) -> bool {
        const DUPLICATED: u8 = 0x10;
        let Some(last) = self.unlisted.get_mut(usize::from(pid)) else {
            return true;
        };
        let before = core::mem::replace(last, continuity);
        if flagged || before == NO_CONTINUITY || continuity == before.wrapping_add(1) & 0xF {
            return true;
        }
        if before & 0xF == continuity {
            // Sent twice is legal.
            *last |= DUPLICATED;
            if before & DUPLICATED == 0 {
                return true;
            }
        }
        self.count(Check::Continuity, pid);
        false
    }

    pub(super) fn scrambled(&mut self, pid: u16, is_pmt: bool) {
        match pid {
            0 => self.count(Check::Pat, pid),
            _ if is_pmt => self.count(Check::Pmt, pid),
            _ => {}
        }
        self.scrambled = Some(pid);
        self.judge_scrambled();
    }

    /// 2.6: scrambled packets, and no CAT in the time that one may take to come.
    fn judge_scrambled(&mut self) {
        let waited = self
            .begun
            .is_some_and(|begun| self.now.saturating_since(begun) > CAT_INTERVAL);
        let counted = self
            .scrambled_counted
            .is_some_and(|last| self.now.saturating_since(last) < CAT_INTERVAL);
        if self.cat || counted {
            self.scrambled = None;
        }
        if waited && let Some(pid) = self.scrambled.take() {
            self.scrambled_counted = Some(self.now);
            self.count(Check::Cat, pid);
        }
    }

    /// A section of the PID at `index`; what it is.
    pub(super) fn section(
        &mut self,
        index: usize,
        pid: u16,
        is_pmt: bool,
        bytes: &[u8],
        parsed: &Result<Section<'_>, Broken>,
    ) {
        let table = bytes.first().copied().unwrap_or(0xFF);
        let broken = match parsed {
            Err(Broken::Crc) => true,
            // The one short section with a CRC.
            Err(Broken::Syntax) => pid == 0x14 && table == TOT && psi::crc32(bytes) != 0,
            Ok(_) => false,
        };
        if broken {
            self.count(Check::Crc, pid);
        }
        match (pid, table) {
            (0, 0) if parsed.is_ok() => self.recurs(index, Check::Pat, pid),
            (0, 0) => {}
            (0, _) => self.count(Check::Pat, pid),
            (CAT_PID, 1) => self.cat |= parsed.is_ok(),
            (CAT_PID, _) => self.count(Check::Cat, pid),
            (_, 2) if is_pmt && parsed.is_ok() => self.recurs(index, Check::Pmt, pid),
            _ => {}
        }
    }

    /// A table came.
    fn recurs(&mut self, index: usize, check: Check, pid: u16) {
        self.table_gap(index, check, pid);
        if let Some(watch) = self.watch.get_mut(index) {
            watch.table = self.now;
            watch.table_late = false;
        }
    }

    fn table_gap(&mut self, index: usize, check: Check, pid: u16) {
        let limit = if check == Check::Pat {
            self.limits.pat
        } else {
            self.limits.pmt
        };
        let (now, begun) = (self.now, self.begun.unwrap_or(self.now));
        let Some(watch) = self.watch.get_mut(index) else {
            return;
        };
        if !watch.table_late && now.saturating_since(watch.table.max(begun)) > limit {
            watch.table_late = true;
            self.count(check, pid);
        }
    }

    /// A PTS on the PID at `index`, at `clock` ticks of its program.
    pub(super) fn pts(&mut self, index: usize, pid: u16, clock: u64) {
        self.pts_gap(index, pid, clock);
        if let Some(watch) = self.watch.get_mut(index) {
            watch.pts = Some(clock);
            watch.pts_late = false;
        }
    }

    fn pts_gap(&mut self, index: usize, pid: u16, clock: u64) {
        let limit = ticks_of(self.limits.pts);
        let Some(watch) = self.watch.get_mut(index) else {
            return;
        };
        let late = watch.pts.is_some_and(|at| clock.saturating_sub(at) > limit);
        if late && !watch.pts_late {
            watch.pts_late = true;
            self.count(Check::Pts, pid);
        }
    }

    /// A PID of which a packet was `seen`, as late as at `before`, or not, since the last look
    /// (1.6).
    fn absence(&mut self, index: usize, pid: u16, seen: bool, before: Instant) {
        let (now, begun) = (self.now, self.begun.unwrap_or(self.now));
        let Some(watch) = self.watch.get_mut(index) else {
            return;
        };
        if seen {
            watch.seen = before;
            watch.absent = false;
        }
        if !watch.absent && now.saturating_since(watch.seen.max(begun)) > self.limits.pid {
            watch.absent = true;
            self.count(Check::Pid, pid);
        }
    }
}

impl Demux {
    /// The clock of arrivals has reached `now`: looks for what has not come.
    #[cold]
    pub(crate) fn check_gaps(&mut self, now: Instant) {
        let due = core::mem::replace(&mut self.next_check, now + INTERVAL);
        let Some(mut monitor) = self.monitor.take() else {
            self.next_check = Instant::FAR_FUTURE;
            return;
        };
        // Tables and references have set the clock since the last look.
        let before = monitor.now;
        monitor.now = monitor.now.max(now);
        if monitor.begun.is_none() {
            monitor.begun = Some(monitor.now);
            for index in 0..self.pids.len() {
                monitor.listed(index);
            }
        } else if now.saturating_since(due) > STALL {
            monitor.begun = Some(monitor.now);
        }
        monitor.judge_scrambled();
        for index in 1..self.pids.len() {
            let Some(state) = self.pids.get_mut(index).filter(|s| s.pid != 0x1FFF) else {
                continue;
            };
            let pid = state.pid;
            let seen = state.continuity & UNSEEN == 0;
            state.continuity |= UNSEEN;
            let tables = matches!(state.body, Body::Psi(_));
            let track = state.track();
            let media = track
                .and_then(|t| self.tracks.get(usize::from(t)))
                .is_some_and(|t| t.codec.is_video() || t.codec.is_audio());
            if tables {
                let check = if pid == 0 { Check::Pat } else { Check::Pmt };
                monitor.table_gap(index, check, pid);
            }
            let referenced = || self.programs.iter().flatten().any(|p| p.pcr_pid == pid);
            if media || referenced() {
                monitor.absence(index, pid, seen, before);
            }
        }
        self.check_references(&mut monitor);
        self.monitor = Some(monitor);
    }

    /// References that have not come for long (2.3a).
    fn check_references(&mut self, monitor: &mut Monitor) {
        let limit = monitor.limits.pcr + PCR_JITTER;
        let begun = monitor.begun.unwrap_or(monitor.now);
        for program in self.programs.iter_mut().flatten() {
            let clock = &mut program.clock;
            let since = clock
                .last
                .map_or(clock.since, |pcr| pcr.arrival.max(clock.since));
            let overdue = monitor.now.saturating_since(since.max(begun)) > limit;
            if program.pcr_pid != 0x1FFF && overdue && !clock.overdue {
                clock.overdue = true;
                monitor.report.pcr_repetition += 1;
                monitor.count(Check::Pcr, program.pcr_pid);
            }
        }
    }

    /// The program's clock has gone on: times that have not come (2.5).
    pub(super) fn check_times(&mut self, place: usize) {
        let (Some(monitor), Some(Some(program))) =
            (self.monitor.as_mut(), self.programs.get(place))
        else {
            return;
        };
        for &pid in &program.pids {
            let index = self.table.get(usize::from(pid)).copied().unwrap_or(0);
            monitor.pts_gap(usize::from(index), pid, program.clock.ticks);
        }
    }
}
