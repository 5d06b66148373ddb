//! Lookups: what a row finds in its epoch, whatever comes first in it, and nothing later.

use super::*;

/// A lookup of `k, v` in `k, v` by `k`, with `left.v < right.v` where there is a condition.
fn lookup(kind: JoinKind, condition: bool) -> Arc<Join> {
    Arc::new(Join { lookup: true, ..(*join(kind, &[0], false, condition)).clone() })
}

#[test]
fn a_row_finds_what_is_there_at_the_end_of_its_epoch() {
    let script = [
        Rows("+1 1 10; +1 null 11"),
        At(1, "+1 1 20; +1 null 21"),
        Mark(0, "+1 1 10 1 20; +1 null 11 null null"),
        At(1, "-1 1 20; +1 1 22; +1 1 23"),
        Mark(0, ""),
        Recover,
        Rows("+2 1 12; +1 2 13"),
        Mark(0, "+2 1 12 1 22; +2 1 12 1 23; +1 2 13 null null"),
        Rows("+1 1 14"),
        At(1, "-1 1 22; -1 1 23; +1 2 24"),
        Mark(0, "+1 1 14 null null"),
    ];
    check(lookup(JoinKind::Left, false), &schema(), &script).expect("a left lookup");
    let script = [
        Rows("+1 1 10; +1 null 11; +1 2 12"),
        At(1, "+1 1 20; +1 1 5; +1 2 3"),
        Mark(0, "+1 1 10 1 20"),
        At(1, "+1 2 30"),
        Mark(0, ""),
    ];
    check(lookup(JoinKind::Inner, true), &schema(), &script).expect("an inner lookup with a condition");
}

#[test]
fn what_an_epoch_says_is_that_of_nested_loops_over_its_rows() {
    for (kind, condition) in [JoinKind::Inner, JoinKind::Left].into_iter().flat_map(|k| [(k, false), (k, true)]) {
        let of = lookup(kind, condition);
        let mut rng = StdRng::seed_from_u64(u64::from(condition));
        let mut bench = Bench::new(of.clone()).expect("builds");
        let mut right = BTreeMap::new();
        for epoch in 0..60 {
            let mut left = BTreeMap::new();
            for _ in 0..rng.random_range(0..5) {
                let growing = |c: &Changes| c.weights().is_none_or(|w| w.iter().all(|w| *w > 0));
                if rng.random_bool(0.5) {
                    bench.changes(1, random(&mut rng, &mut right)).expect("takes them");
                    continue;
                }
                let mut more = BTreeMap::new();
                let changes = random(&mut rng, &mut more);
                if growing(&changes) {
                    more.into_iter().for_each(|(row, n)| *left.entry(row).or_default() += n);
                    bench.changes(0, changes).expect("takes them");
                }
            }
            let mut said = BTreeMap::<String, i64>::new();
            for changes in bench.mark(EventTime(epoch)).expect("a mark") {
                let (rows, weights) = changes.into_parts();
                assert!(weights.as_ref().is_none_or(|w| w.iter().all(|w| *w > 0)), "nothing is taken back");
                let lines = crate::testing::show(&Changes::insertions(rows)).expect("text");
                for (i, line) in lines.iter().enumerate() {
                    let line = line.trim_start_matches("+1 ").to_owned();
                    *said.entry(line).or_default() += weights.as_ref().map_or(1, |w| w[i]);
                }
            }
            assert_eq!(said, nested_loops(&of, &[left, right.clone()]), "{}, epoch {epoch}", of.describe());
            if rng.random_bool(0.2) {
                bench.recover().expect("restores");
            }
        }
    }
}

#[test]
fn a_key_that_many_rows_have_is_looked_up_piece_by_piece() {
    let mut bench = Bench::new(lookup(JoinKind::Left, false)).expect("builds");
    bench.changes(1, skewed(100)).expect("takes them");
    bench.changes(0, skewed(20_000)).expect("takes them");
    let said = bench.mark(EventTime(0)).expect("a mark");
    assert_eq!(said.iter().map(Changes::num_rows).sum::<usize>(), 2_000_000);
    let most = said.iter().map(Changes::bytes).max().expect("it is said");
    assert!(most <= 4 << 20 && bench.rounds() > 10, "{most} bytes at once, {} rounds", bench.rounds());
}

#[test]
fn rows_that_are_looked_up_are_held_for_an_epoch_only() {
    let mut bench = Bench::new(lookup(JoinKind::Inner, false)).expect("builds");
    for epoch in 0..50 {
        bench.changes(0, skewed(10_000)).expect("takes them");
        assert!(bench.bytes() > 100_000, "those of the epoch count");
        assert_eq!(bench.mark(EventTime(epoch)).expect("a mark").len(), 0);
        assert!(bench.bytes() < 10_000, "{} bytes after epoch {epoch}", bench.bytes());
    }
    assert!(bench.changes(0, Changes::retractions(skewed(1).into_rows())).is_err());
}

#[test]
fn only_the_side_that_is_looked_up_bounds_the_state() {
    let bound = |one_of: Option<&str>, right_ends: bool| {
        let one_of = [None, one_of.map(|name| vec![name.to_owned()])];
        Join { one_of, right_ends, ..(*lookup(JoinKind::Left, false)).clone() }.state_bound()
    };
    assert_eq!(bound(Some("k"), false), StateBound::Keys("k".to_owned()));
    assert_eq!(bound(None, true), StateBound::Input);
    assert_eq!(bound(None, false), StateBound::Unbounded);
}
