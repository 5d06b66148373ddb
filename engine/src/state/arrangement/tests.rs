//! An arrangement against a map of rows to weights.

use std::collections::BTreeMap;

use arrow::array::{BinaryViewArray, Float64Array, Int64Array, ListArray, StringViewArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::testing::show;

/// Rows with a number, a text, a float and a list, all of few values.
fn schema() -> SchemaRef {
    let list = DataType::List(Arc::new(Field::new("item", DataType::Int64, true)));
    let fields = [("n", DataType::Int64), ("t", DataType::Utf8View), ("f", DataType::Float64), ("l", list)];
    Arc::new(Schema::new(fields.map(|(n, t)| Field::new(n, t, true)).to_vec()))
}

fn random(rng: &mut StdRng, rows: usize, keys: i64, nulls: bool) -> RecordBatch {
    let mut numbers = || (0..rows).map(|_| rng.random_range(0..keys)).collect::<Vec<_>>();
    let (n, t, f, l) = (numbers(), numbers(), numbers(), numbers());
    let null = |v: &i64| nulls && *v == 1;
    let long = "a text that is longer than what lies in a view";
    let text = |v: &i64| (!null(v)).then(|| if *v % 2 == 0 { v.to_string() } else { format!("{v} {long}") });
    let float = |v: &i64| match v {
        0 => Some(f64::NAN),
        v if null(v) => None,
        2 => Some(-0.0),
        3 => Some(0.0),
        v => Some(*v as f64),
    };
    let list = |v: &i64| (!null(v)).then(|| vec![Some(*v), None]);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(n.iter().map(|v| (!null(v)).then_some(*v)).collect::<Int64Array>()),
        Arc::new(t.iter().map(text).collect::<StringViewArray>()),
        Arc::new(f.iter().map(float).collect::<Float64Array>()),
        Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(l.iter().map(list))),
    ];
    RecordBatch::try_new(schema(), columns).expect("rows")
}

/// Rows as text, with their weights added up.
fn add(to: &mut BTreeMap<String, i64>, changes: &Changes) {
    let one = Changes::insertions(changes.rows().clone());
    for (i, row) in show(&one).expect("text").into_iter().enumerate() {
        let weight = to.entry(row.clone()).or_default();
        *weight += changes.weight(i);
        if *weight == 0 {
            to.remove(&row);
        }
    }
}

/// What an arrangement says has the keys of `probe`.
fn looked_up(of: &Arrangement, probe: &Keyed, most: usize) -> BTreeMap<String, i64> {
    let (mut cursor, mut found) = (Cursor::default(), BTreeMap::new());
    loop {
        let (pairs, done) = of.pairs(probe, &mut cursor, most).expect("looks up");
        assert!(pairs.probe.len() <= most);
        let mine = of.columns_of(probe, &pairs.probe, &[0, 1, 2, 3]).expect("rows");
        let theirs = of.columns_in(&pairs, &[0, 1, 2, 3]).expect("rows");
        let both = [mine, theirs].concat();
        let fields = [schema().fields().iter().cloned().collect::<Vec<_>>(), schema().fields().to_vec()].concat();
        let both = RecordBatch::try_new(Arc::new(Schema::new(fields)), both).expect("both");
        let weights = pairs.probe.iter().zip(&pairs.weights).map(|(p, w)| probe.weight(*p as usize) * w);
        add(&mut found, &Changes::weighted(both, weights.collect()).expect("weights"));
        if done {
            return found;
        }
    }
}

/// The same from a list of all rows.
fn expected(all: &[Changes], probe: &Changes, key: &[usize]) -> BTreeMap<String, i64> {
    let canonical = |rows: &RecordBatch| -> Vec<Vec<String>> {
        let keys: Vec<ArrayRef> =
            key.iter().map(|k| crate::float::canonical(rows.column(*k)).expect("canonical")).collect();
        let fields: Vec<_> = key.iter().map(|k| schema().field(*k).clone()).collect();
        if keys.is_empty() {
            return vec![vec![]; rows.num_rows()];
        }
        let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), keys).expect("keys");
        show(&Changes::insertions(rows)).expect("text").into_iter().map(|t| vec![t]).collect()
    };
    let text = |rows: &RecordBatch| show(&Changes::insertions(rows.clone())).expect("text");
    let mut found = BTreeMap::new();
    let (probe_keys, probe_rows) = (canonical(probe.rows()), text(probe.rows()));
    for some in all {
        let (keys, rows) = (canonical(some.rows()), text(some.rows()));
        for (i, mine) in probe_keys.iter().enumerate() {
            for j in (0..rows.len()).filter(|j| keys[*j] == *mine) {
                let both = format!("{} {}", probe_rows[i], rows[j].trim_start_matches("+1 "));
                *found.entry(both).or_default() += probe.weight(i) * some.weight(j);
            }
        }
    }
    found.retain(|_, w| *w != 0);
    found
}

fn arrangement(key: &[usize]) -> Arrangement {
    Arrangement::new(schema(), key.to_vec()).expect("an arrangement")
}

#[test]
fn what_is_looked_up_is_what_was_put_in_and_not_taken_back() {
    let mut fulls = 0;
    for seed in 0..12 {
        let mut rng = StdRng::seed_from_u64(seed);
        let key: &[usize] = [&[0][..], &[1], &[2, 0], &[3], &[], &[0, 1, 2, 3]][seed as usize % 6];
        let nulls = key != [0] || seed > 5;
        let mut of = arrangement(key);
        let (mut all, mut parts): (Vec<Changes>, Vec<RecordBatch>) = (vec![], vec![]);
        for round in 0..40 {
            let rows = rng.random_range(1..if round % 7 == 0 { 400 } else { 9 });
            let keys = if key.is_empty() { 3 } else { 12 };
            let mut changes = Changes::insertions(random(&mut rng, rows, keys, nulls));
            if !all.is_empty() && rng.random_bool(0.4) {
                // Some of what came before goes.
                let some = &all[rng.random_range(0..all.len())];
                let gone = some.weights().map_or(vec![-1; some.num_rows()], |w| w.iter().map(|w| -w).collect());
                changes = Changes::weighted(some.rows().clone(), gone.into()).expect("weights");
            }
            of.insert(&of.keyed(&changes).expect("keyed")).expect("put in");
            all.push(changes);
            if rng.random_bool(0.3) {
                let full = parts.is_empty() || of.needs_full() || rng.random_bool(0.2);
                if full {
                    (parts, fulls) = (vec![], fulls + 1);
                }
                parts.extend(of.snapshot(full).expect("a snapshot"));
                of = arrangement(key);
                for part in &parts {
                    of.restore(part, Owner { task: 0, parallelism: 1 }).expect("restores");
                }
            }
            let probe = Changes::insertions(random(&mut rng, 7, 12, nulls));
            let keyed = of.keyed(&probe).expect("keyed");
            let most = rng.random_range(1..100);
            assert_eq!(looked_up(&of, &keyed, most), expected(&all, &probe, key), "seed {seed}, round {round}");
        }
    }
    assert!(fulls > 24, "{fulls} full snapshots");
}

#[test]
fn what_is_taken_back_goes_and_rows_that_are_equal_become_one() {
    let mut rng = StdRng::seed_from_u64(7);
    let mut of = arrangement(&[0]);
    let rows = random(&mut rng, 3000, 1 << 40, false);
    for weight in [1, 1, -1] {
        for at in (0..3000).step_by(100) {
            let some = Changes::weighted(rows.slice(at, 100), vec![weight; 100].into()).expect("weights");
            of.insert(&of.keyed(&some).expect("keyed")).expect("put in");
        }
    }
    assert!((3000..=5000).contains(&of.rows()), "{} rows are kept of 3000", of.rows());
    let gone = Changes::retractions(rows);
    of.insert(&of.keyed(&gone).expect("keyed")).expect("put in");
    assert!(of.rows() == 0 && of.bytes() < of.fresh_bytes + 1000, "{} rows, {} bytes", of.rows(), of.bytes());
}

#[test]
fn tasks_read_back_the_keys_that_they_own() {
    let mut rng = StdRng::seed_from_u64(11);
    let mut of = arrangement(&[1]);
    let rows = random(&mut rng, 5000, 900, true);
    of.insert(&of.keyed(&Changes::insertions(rows.clone())).expect("keyed")).expect("put in");
    let parts = of.snapshot(true).expect("a snapshot");
    let all = looked_up(&of, &of.keyed(&Changes::insertions(rows.slice(0, 50))).expect("keyed"), 1000);
    for parallelism in [1, 2, 3, 8] {
        let (mut found, mut kept) = (BTreeMap::new(), 0);
        for task in 0..parallelism {
            let mut part = arrangement(&[1]);
            for rows in &parts {
                part.restore(rows, Owner { task, parallelism }).expect("restores");
            }
            kept += part.rows();
            let probe = part.keyed(&Changes::insertions(rows.slice(0, 50))).expect("keyed");
            found.extend(looked_up(&part, &probe, 1000));
        }
        assert_eq!((kept, &found), (5000, &all), "{parallelism} tasks");
    }
}

#[test]
fn keys_are_routed_as_they_come_when_they_are_read_back() {
    let bytes = Arc::new(Schema::new(vec![Field::new("k", DataType::BinaryView, true)]));
    let new = || Arrangement::new(bytes.clone(), vec![0]).expect("an arrangement");
    let keys: ArrayRef = Arc::new(BinaryViewArray::from_iter_values((0..200).map(|i: i32| i.to_le_bytes())));
    let rows = RecordBatch::try_new(bytes.clone(), vec![keys.clone()]).expect("rows");
    let mut of = new();
    of.insert(&of.keyed(&Changes::insertions(rows.clone())).expect("keyed")).expect("put in");
    let parts = of.snapshot(true).expect("a snapshot");
    let mut hashes = vec![];
    hash_rows(&[keys], 200, &mut hashes).expect("hashes");
    for task in 0..3 {
        let owner = Owner { task, parallelism: 3 };
        let mut part = new();
        parts.iter().for_each(|rows| part.restore(rows, owner).expect("restores"));
        let probe = part.keyed(&Changes::insertions(owner.part_of(&rows, &hashes).expect("a part"))).expect("keyed");
        let found = part.sums(&probe).expect("looks up");
        assert!(found.len() > 40 && found.iter().all(|sum| *sum == 1), "task {task} has {found:?}");
    }
}

#[test]
fn a_checkpoint_writes_what_has_changed_and_holds_little_meanwhile() {
    let mut rng = StdRng::seed_from_u64(3);
    let mut of = arrangement(&[0]);
    let numbers = Arc::new(schema().project(&[0]).expect("a column"));
    let mut narrow = Arrangement::new(numbers.clone(), vec![0]).expect("an arrangement");
    let bytes = |parts: Vec<RecordBatch>| parts.iter().map(crate::changes::row_bytes).sum::<usize>();
    for _ in 0..100 {
        let rows = random(&mut rng, 2000, 1 << 40, false);
        let number = RecordBatch::try_new(numbers.clone(), vec![rows.column(0).clone()]).expect("a column");
        narrow.insert(&narrow.keyed(&Changes::insertions(number)).expect("keyed")).expect("put in");
        of.insert(&of.keyed(&Changes::insertions(rows)).expect("keyed")).expect("put in");
    }
    assert!(of.needs_full() && narrow.needs_full(), "all is new");
    let full = bytes(of.snapshot(true).expect("a snapshot"));
    let (rows, held) = (narrow.rows(), narrow.bytes());
    assert_eq!(rows, 200_000);
    assert!(
        held <= 26 * rows,
        "{held} bytes for {rows} numbers, the number of a row and a place in the index for each"
    );
    let some = random(&mut rng, 2000, 1 << 40, false);
    of.insert(&of.keyed(&Changes::insertions(some)).expect("keyed")).expect("put in");
    assert!(!of.needs_full());
    let delta = bytes(of.snapshot(false).expect("a snapshot"));
    assert!(delta * 95 < full && delta > 0, "{delta} of {full} bytes");
    assert!(of.snapshot(false).expect("a snapshot").is_empty(), "nothing has changed");
}

#[test]
fn equal_hashes_are_not_equal_keys() {
    let rows = random(&mut StdRng::seed_from_u64(1), 8, 1 << 40, false);
    for key in [&[0, 1][..], &[1], &[2], &[3]] {
        let layout = Layout::new(schema(), key.to_vec()).expect("a layout");
        let columns = layout.stored(&rows).expect("columns");
        let rows = Keyed::new(&layout, Chunk::new(&layout, columns, 8), vec![7; 8], None);
        let mut of = arrangement(key);
        of.append(&rows).expect("put in");
        let (mut pairs, mut cursor) = (Pairs::default(), Cursor::default());
        assert!(pairs::candidates((&of.log, &of.index), &rows.orders, &mut cursor, 100, &mut pairs));
        assert_eq!(pairs.probe.len(), 64, "one hash, so all are candidates");
        equal::verify(&layout, &rows.chunk, key, &mut pairs).expect("compares");
        let mut own: Vec<(u32, usize)> =
            pairs.probe.iter().zip(&pairs.places).map(|(p, (_, row))| (*p, *row)).collect();
        own.sort_unstable();
        assert_eq!(own, (0..8).map(|i| (i as u32, i)).collect::<Vec<_>>(), "key {key:?}");
    }
}

#[test]
fn rows_of_a_key_that_has_very_many_are_taken_back_all_the_same() {
    let fields = ["k", "v"].map(|n| Field::new(n, DataType::Int64, true)).to_vec();
    let schema = Arc::new(Schema::new(fields));
    let rows = |values: Range<i64>| {
        let key: ArrayRef = Arc::new(Int64Array::from_iter_values(values.clone().map(|_| 1)));
        RecordBatch::try_new(schema.clone(), vec![key, Arc::new(Int64Array::from_iter_values(values))]).expect("rows")
    };
    let mut of = Arrangement::new(schema.clone(), vec![0]).expect("an arrangement");
    of.insert(&of.keyed(&Changes::insertions(rows(0..60_000))).expect("keyed")).expect("put in");
    let probe = of.keyed(&Changes::insertions(rows(0..1))).expect("keyed");
    let (mut left, mut owed) = (60_000, 0);
    // The oldest first: they lie behind all others of their key.
    for from in (0..50_000).step_by(100) {
        of.insert(&of.keyed(&Changes::retractions(rows(from..from + 100))).expect("keyed")).expect("put in");
        left -= 100;
        owed = owed.max(of.log.owed);
        if from % 5000 == 0 {
            assert_eq!(of.sums(&probe).expect("looks up"), [left], "after {from}");
            let netted = of.netted(&probe).expect("nets");
            assert_eq!(netted.map_or(left as usize, |netted| netted.rows()), left as usize, "after {from}");
        }
    }
    assert!(owed > 1000, "at most {owed} rows waited for what they take back");
    of.net().expect("nets");
    assert_eq!((of.rows(), of.log.owed), (10_000, 0));
    // What comes before what takes it back, and the other way round.
    of.insert(&of.keyed(&Changes::retractions(rows(70_000..70_010))).expect("keyed")).expect("put in");
    assert_eq!((of.rows(), of.log.owed), (10_010, 10));
    of.insert(&of.keyed(&Changes::insertions(rows(70_000..70_020))).expect("keyed")).expect("put in");
    assert_eq!((of.rows(), of.log.owed), (10_010, 0));
}

#[test]
fn rows_that_expire_go_with_their_blocks_and_others_stay() {
    let times = DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, None);
    let schema = Arc::new(Schema::new(vec![Field::new("k", DataType::Int64, true), Field::new("t", times, true)]));
    let rows = |range: Range<i64>| {
        let key: ArrayRef = Arc::new(Int64Array::from_iter_values(range.clone().map(|i| i % 7000)));
        // About in order.
        let time = arrow::array::TimestampMicrosecondArray::from_iter_values(range.map(|i| i + i * 7919 % 30_000));
        RecordBatch::try_new(schema.clone(), vec![key, Arc::new(time)]).expect("rows")
    };
    let mut of = Arrangement::new(schema.clone(), vec![0]).expect("an arrangement").expiring(Some(1));
    let all: Vec<i64> = (0..1_000_000).map(|i| i + i * 7919 % 30_000).collect();
    for from in (0..1_000_000).step_by(8000) {
        of.insert(&of.keyed(&Changes::insertions(rows(from..from + 8000))).expect("keyed")).expect("put in");
        let bound = from - 100_000;
        of.expire(bound).expect("lets go");
        let alive = all[..from as usize + 8000].iter().filter(|t| **t >= bound).count();
        assert!((alive..alive + 140_000).contains(&of.rows()), "{} rows for {alive}", of.rows());
        if from % 104_000 == 0 {
            let probe = of.keyed(&Changes::insertions(rows(from..from + 100))).expect("keyed");
            let (pairs, done) = of.pairs(&probe, &mut Cursor::default(), 1 << 20).expect("looks up");
            let found = of.columns_in(&pairs, &[1]).expect("times")[0].clone();
            let found = found.as_primitive::<arrow::datatypes::TimestampMicrosecondType>().values();
            let keys = from..from + 100;
            let wanted =
                (0..from + 8000).filter(|i| keys.clone().any(|k| (k - i) % 7000 == 0) && all[*i as usize] >= bound);
            assert_eq!((done, found.iter().filter(|t| **t >= bound).count()), (true, wanted.count()), "at {from}");
        }
    }
    of.expire(i64::MAX).expect("lets go");
    (0..20).for_each(|_| of.let_go(MUCH).expect("lets go"));
    assert_eq!((of.rows(), of.kept_bytes()), (0, 0));
}
