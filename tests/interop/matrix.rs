//! Every program that speaks SRT through libsrt, calling and called, over each pair of cipher,
//! latency and line. The cells and what must hold in them are in `mirror_tests::matrix`; all of
//! them are played by `scripts/interop --all`.

use mirror_tests::Alone;
use mirror_tests::matrix::{Bench, Cell, Outcome, pairs, report, table};

#[test]
fn what_libsrts_programs_send_arrives_byte_for_byte_over_each_pair_of_factors() {
    let test = Alone::begin("matrix");
    let cells = pairs::covering(&Cell::all());
    let outcomes = Bench::new(&test).play(&cells, 10, |_| {});
    assert!(
        outcomes.iter().all(Outcome::is_good),
        "{}",
        table(&outcomes)
    );
    let (ours, theirs) = report::totals(&outcomes);
    assert!(
        ours <= report::allowed(theirs),
        "more is missing than with libsrt\n{}",
        table(&outcomes)
    );
}
