//! A selection of cells in which each pair of values of two factors occurs: small enough for
//! every run of the tests, and the same each time.

use std::collections::BTreeSet;

use super::Cell;

/// Two factors by number, and the values that they have in a cell.
type Pair = (usize, usize, usize, usize);

fn pairs(cell: &Cell) -> impl Iterator<Item = Pair> {
    let levels = cell.levels();
    (0..levels.len())
        .flat_map(move |a| (a + 1..levels.len()).map(move |b| (a, b, levels[a], levels[b])))
}

/// Greedy: always the cell that brings the most pairs not yet seen, the first of equals.
pub fn covering(cells: &[Cell]) -> Vec<Cell> {
    let mut missing: BTreeSet<Pair> = cells.iter().flat_map(pairs).collect();
    let mut chosen = Vec::new();
    while !missing.is_empty() {
        let gain = |cell: &Cell| pairs(cell).filter(|p| missing.contains(p)).count();
        // max_by_key takes the last of equals
        let Some(best) = cells.iter().rev().max_by_key(|cell| gain(cell)) else {
            break;
        };
        for pair in pairs(best) {
            missing.remove(&pair);
        }
        chosen.push(*best);
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_selection_is_small_covers_every_pair_and_is_the_same_each_time() {
        let all = Cell::all();
        let chosen = covering(&all);
        let pairs_of = |cells: &[Cell]| cells.iter().flat_map(pairs).collect::<BTreeSet<_>>();
        assert_eq!(pairs_of(&chosen), pairs_of(&all));
        // 9 lines × 4 ciphers is the least that there can be
        assert!((36..=42).contains(&chosen.len()), "{}", chosen.len());
        assert_eq!(chosen, covering(&all));
    }
}
