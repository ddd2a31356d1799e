//! Splice information (SCTE 35): what an encoder says about breaks. The demultiplexer hands the
//! sections over; [`crate::Pipeline::poll_splice`] gives them on.

/// A splice command with its time (SCTE 35, 9.6).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Splice {
    /// Index of its track.
    pub track: u16,
    /// What is asked for.
    pub command: SpliceCommand,
    /// When, in 90 kHz ticks of the program's clock, `pts_adjustment` added, unwrapped; `None`:
    /// at once.
    pub pts: Option<i64>,
}

/// Splice commands (SCTE 35, 9.7).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SpliceCommand {
    /// splice_null.
    Null,
    /// splice_insert.
    Insert {
        /// splice_event_id.
        event: u32,
        /// out_of_network_indicator: the break begins (else it ends).
        out: bool,
        /// splice_event_cancel_indicator.
        cancel: bool,
        /// break_duration in 90 kHz ticks.
        duration: Option<u64>,
    },
    /// time_signal.
    TimeSignal,
    /// Any other command, by its type.
    Other(u8),
}
