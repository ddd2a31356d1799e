//! What came of each cell, and the table of it all.

use serde_json::{Value, json};

use super::{Cell, Measure};

/// What came of one cell.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Which.
    pub cell: Cell,
    /// What is wrong; empty if nothing is.
    pub faults: Vec<String>,
    /// Bytes that the engine delivered.
    pub bytes: u64,
    /// Packets that never came.
    pub missing: u64,
    /// The same of libsrt's receiver, where it is the measure.
    pub libsrt_missing: Option<u64>,
    /// Losses that the engine saw.
    pub lost: u64,
    /// Packets that came again.
    pub retransmitted: u64,
    /// Round-trip time that it measured, ms.
    pub rtt_ms: f64,
    /// Times that a new key came.
    pub key_refreshes: u64,
    /// It failed among others, and this is what came of it alone.
    pub again: bool,
    /// How long it took.
    pub seconds: f64,
}

impl Outcome {
    /// One that has not come to anything yet.
    pub fn of(cell: Cell) -> Self {
        Outcome {
            cell,
            faults: Vec::new(),
            bytes: 0,
            missing: 0,
            libsrt_missing: None,
            lost: 0,
            retransmitted: 0,
            rtt_ms: 0.0,
            key_refreshes: 0,
            again: false,
            seconds: 0.0,
        }
    }

    /// Whether all is as it has to be.
    pub fn is_good(&self) -> bool {
        self.faults.is_empty()
    }

    /// For a file.
    pub fn to_json(&self) -> Value {
        json!({
            "cell": self.cell.name(),
            "ok": self.is_good(),
            "measure": match self.cell.measure() {
                Measure::Whole => "whole",
                Measure::LikeLibsrt => "like_libsrt",
            },
            "faults": self.faults,
            "bytes": self.bytes,
            "missing": self.missing,
            "libsrt_missing": self.libsrt_missing,
            "lost": self.lost,
            "retransmitted": self.retransmitted,
            "rtt_ms": self.rtt_ms,
            "key_refresh": self.cell.refreshes_keys(),
            "key_refreshes": self.key_refreshes,
            "again": self.again,
            "seconds": self.seconds,
        })
    }

    /// From such a file, if it is of a good cell of this matrix.
    pub fn good_from_json(value: &Value) -> Option<Self> {
        let name = value["cell"].as_str()?;
        let cell = Cell::all().into_iter().find(|c| c.name() == name)?;
        let count = |key: &str| value[key].as_u64();
        value["ok"].as_bool().filter(|ok| *ok)?;
        Some(Outcome {
            bytes: count("bytes")?,
            missing: count("missing")?,
            libsrt_missing: count("libsrt_missing"),
            lost: count("lost")?,
            retransmitted: count("retransmitted")?,
            rtt_ms: value["rtt_ms"].as_f64()?,
            key_refreshes: count("key_refreshes")?,
            again: value["again"].as_bool()?,
            seconds: value["seconds"].as_f64()?,
            ..Outcome::of(cell)
        })
    }
}

/// All outcomes for people, one a line, and a sum.
pub fn table(outcomes: &[Outcome]) -> String {
    let mut text = format!(
        "{:<42} {:>9} {:>6} {:>6} {:>7} {:>7} {:>7}  result\n",
        "cell", "bytes", "lost", "again", "missing", "libsrt", "rtt ms"
    );
    for o in outcomes {
        let libsrt = o.libsrt_missing.map_or("-".to_owned(), |n| n.to_string());
        let refresh = if o.cell.refreshes_keys() { "+km" } else { "" };
        let result = match (o.is_good(), o.again) {
            (true, false) => "ok".to_owned(),
            (true, true) => "ok alone, failed among others".to_owned(),
            (false, _) => format!("FAILED: {}", o.faults.join("; ")),
        };
        text += &format!(
            "{:<42} {:>9} {:>6} {:>6} {:>7} {:>7} {:>7.1}  {result}\n",
            o.cell.name() + refresh,
            o.bytes,
            o.lost,
            o.retransmitted,
            o.missing,
            libsrt,
            o.rtt_ms,
        );
    }
    let bad = outcomes.iter().filter(|o| !o.is_good()).count();
    let again = outcomes.iter().filter(|o| o.again).count();
    let (ours, theirs) = totals(outcomes);
    text + &format!(
        "{} cells: {} good ({again} of them only alone), {bad} failed; \
         where libsrt is the measure: {ours} missing here, {theirs} there\n",
        outcomes.len(),
        outcomes.len() - bad,
    )
}

/// What is missing in all cells where libsrt is the measure: with the engine, and with libsrt.
pub fn totals(outcomes: &[Outcome]) -> (u64, u64) {
    outcomes
        .iter()
        .filter_map(|o| Some((o.missing, o.libsrt_missing?)))
        .fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
}

/// Packets that one receiver may miss where another missed `libsrt` over a line of the same
/// seed. The two lines carry different feedback, so that the same chances meet other packets:
/// each count scatters by its root, and this is three times the difference's.
pub fn allowed(libsrt: u64) -> u64 {
    libsrt + (3.0 * (2.0 * libsrt.max(2) as f64).sqrt()).ceil() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_come_back_from_their_file_if_they_were_good() {
        let mut outcome = Outcome::of(Cell::all()[17]);
        outcome.libsrt_missing = Some(3);
        outcome.bytes = 1316;
        let back = Outcome::good_from_json(&outcome.to_json()).unwrap();
        assert_eq!((back.cell, back.bytes), (outcome.cell, 1316));
        assert_eq!(back.libsrt_missing, Some(3));
        outcome.faults.push("x".into());
        assert!(Outcome::good_from_json(&outcome.to_json()).is_none());
        assert!(table(&[outcome]).contains("FAILED: x"));
    }
}
