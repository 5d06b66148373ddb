//! Timelines against a sorted map.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, Float64Array, Int64Array, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

#[test]
fn a_series_finds_what_a_sorted_map_does() {
    for seed in 0..20 {
        let mut rng = StdRng::seed_from_u64(seed);
        let (mut series, mut map) = (Series::default(), BTreeMap::<Vec<u8>, i64>::new());
        let most = if seed % 2 == 0 { 40 } else { 3000 };
        for step in 0..4000 {
            let row = (rng.random_range(0..most) as u16).to_be_bytes().to_vec();
            let weight = map.get(&row).copied().filter(|_| rng.random_bool(0.5)).map_or(1, |w| -w);
            series.add(&row, weight);
            *map.entry(row.clone()).or_default() += weight;
            map.retain(|_, weight| *weight != 0);
            assert_eq!(series.len(), map.len());
            assert_eq!(series.at(series.seek(&row)), map.range(row.clone()..).next().map(|(r, _)| &r[..]));
            assert_eq!(series.before(series.seek(&row)), map.range(..row.clone()).next_back().map(|(r, _)| &r[..]));
            let first = &row[..1];
            let behind = map.keys().find(|r| r[..1] > *first).map(|r| &r[..]);
            assert_eq!(series.at(series.after(first)), behind);
            if step % 500 == 499 {
                let all: Vec<_> = series.between(series.start(), series.end()).map(|(r, w)| (r.to_vec(), w)).collect();
                assert_eq!(all, map.iter().map(|(r, w)| (r.clone(), *w)).collect::<Vec<_>>());
                series.let_go(series.seek(&row), |r| r[1].is_multiple_of(2));
                map.retain(|r, _| *r >= row || r[1].is_multiple_of(2));
            }
        }
        let rows: Vec<Vec<u8>> = map.keys().cloned().collect();
        rows.iter().for_each(|row| assert_eq!(series.add(row, -map[row]), 0));
        assert!(series.is_empty() && series.bytes() == 0);
    }
}

fn schema() -> SchemaRef {
    let fields = [("k", DataType::Float64), ("t", DataType::Int64), ("v", DataType::Utf8)];
    Arc::new(Schema::new(fields.map(|(name, of)| Field::new(name, of, true)).to_vec()))
}

fn rows(of: &[(f64, i64, Option<&str>)]) -> RecordBatch {
    let k: Float64Array = of.iter().map(|r| Some(r.0)).collect();
    let t: Int64Array = of.iter().map(|r| Some(r.1)).collect();
    let v: StringArray = of.iter().map(|r| r.2).collect();
    RecordBatch::try_new(schema(), vec![Arc::new(k), Arc::new(t), Arc::new(v)]).expect("three columns")
}

fn timeline(of: &RecordBatch) -> Timeline {
    let mut timeline = Timeline::new(schema(), vec![0], 1).expect("a timeline");
    let encoded = timeline.encoded(of).expect("bytes");
    (0..encoded.len()).for_each(|i| timeline.add(encoded.key(i), encoded.row(i), 1));
    timeline
}

#[test]
fn rows_come_back_as_they_were() {
    let given = rows(&[(-0.0, 3, Some("a")), (0.0, 2, None), (f64::NAN, -1, Some("")), (-f64::NAN, 7, Some("z"))]);
    let timeline = timeline(&given);
    // Minus zero is zero, and there is one NaN.
    assert_eq!((timeline.keys(), timeline.len()), (2, 4));
    let encoded = timeline.encoded(&given).expect("bytes");
    let mut picked = Picked::default();
    (0..encoded.len()).for_each(|i| assert_eq!(picked.push(encoded.row(i)), i as u32));
    let at = UInt32Array::from(vec![Some(1), None, Some(0)]);
    let columns = timeline.columns_at(&picked, &at).expect("columns");
    assert_eq!(columns[1].as_ref(), &Int64Array::from(vec![Some(2), None, Some(3)]) as &dyn Array);
    assert_eq!(columns[2].as_ref(), &StringArray::from(vec![None, None, Some("a")]) as &dyn Array);
    let keys = columns[0].as_primitive::<arrow::datatypes::Float64Type>();
    assert!(keys.value(2).is_sign_negative() && keys.is_null(1));
}

#[test]
fn what_is_taken_back_must_be_there() {
    let given = rows(&[(1.0, 3, Some("a"))]);
    let mut timeline = timeline(&given);
    let encoded = timeline.encoded(&given).expect("bytes");
    timeline.add(encoded.key(0), encoded.row(0), -1);
    timeline.end_epoch().expect("it was there");
    assert!(timeline.is_empty());
    timeline.add(encoded.key(0), encoded.row(0), -1);
    let error = timeline.end_epoch().expect_err("it is not");
    assert!(error.message().contains("not there"), "{error}");
    timeline.add(encoded.key(0), encoded.row(0), 2);
    timeline.end_epoch().expect("it has come");
    assert_eq!(timeline.len(), 1);
}

#[test]
fn tasks_take_the_rows_of_their_keys() {
    let of: Vec<(f64, i64, Option<&str>)> = (0..100).map(|k| (f64::from(k), 1, Some("v"))).collect();
    for together in [false, true] {
        let empty = || {
            let timeline = Timeline::new(schema(), vec![0], 1).expect("a timeline");
            if together { timeline.together() } else { timeline }
        };
        let mut all = empty();
        let encoded = all.encoded(&rows(&of)).expect("bytes");
        (0..encoded.len()).for_each(|i| all.add(encoded.key(i), encoded.row(i), 1));
        let parts = all.snapshot(true).expect("a snapshot");
        let mut tasks = [empty(), empty()];
        for (task, timeline) in tasks.iter_mut().enumerate() {
            let owner = Owner { task, parallelism: 2 };
            parts.iter().for_each(|part| timeline.restore(part, owner).expect("its rows"));
        }
        assert_eq!(tasks[0].len() + tasks[1].len(), 100);
        assert!(tasks.iter().all(|timeline| timeline.len() > 20));
        // What has come and gone since then is all that the next one has.
        let timeline = &mut tasks[0];
        timeline.snapshot(true).expect("a snapshot");
        let encoded = timeline.encoded(&rows(&[(500.0, 1, None)])).expect("bytes");
        timeline.add(encoded.key(0), encoded.row(0), 1);
        timeline.add(encoded.key(0), encoded.row(0), -1);
        let more = timeline.snapshot(false).expect("a snapshot");
        assert_eq!(more.iter().map(RecordBatch::num_rows).sum::<usize>(), 2);
        assert!(timeline.snapshot(false).expect("a snapshot").is_empty());
    }
}
