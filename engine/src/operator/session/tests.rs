//! `SESSION` as scripts, and against what sorting all rows gives.

use std::collections::BTreeMap;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, TimestampSecondArray};
use arrow::datatypes::{DataType, Field, TimeUnit};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::changes::Changes;
use crate::operator::length::Length;
use crate::testing::Step::{End, Mark, Recover, Rows};
use crate::testing::{Bench, Step, check, show};
use crate::time::EventTime;

const S: i64 = 1_000_000;

fn input() -> SchemaRef {
    let time = DataType::Timestamp(TimeUnit::Second, None);
    Arc::new(Schema::new(vec![Field::new("k", DataType::Int64, true), Field::new("ts", time, true)]))
}

/// With a gap of ten seconds.
fn session(on_close: bool, most: Option<i64>) -> Session {
    let sessions = Sessions { gap: Length::Micros(10 * S), most: most.map(|s| Length::Micros(s * S)) };
    let session = Session::new(&input(), 1, vec![0], sessions).expect("a timestamp");
    Session { on_close, closes: true, ..session }
}

/// `+1 k ts` or `+1 k ts start end`, in seconds of the first minutes of 1970.
fn said(text: &str) -> String {
    let time = |s: &str| {
        let s: i64 = s.parse().expect("a number");
        format!("1970-01-01T00:{:02}:{:02}", s / 60, s % 60)
    };
    let line = |line: &str| {
        let cells = line.split_whitespace().enumerate();
        let cells = cells.map(|(i, cell)| if i < 2 || cell == "null" { cell.to_owned() } else { time(cell) });
        cells.collect::<Vec<_>>().join(" ")
    };
    text.split(';').map(str::trim).filter(|l| !l.is_empty()).map(line).collect::<Vec<_>>().join(";")
}

/// Runs a script in which times are seconds.
fn run(spec: Session, script: &[Step<'_>]) {
    let text = |step: &Step<'_>| match step {
        Rows(rows) => said(rows),
        Mark(_, expected) | End(expected) => said(expected),
        _ => String::new(),
    };
    let texts: Vec<String> = script.iter().map(text).collect();
    let steps = script.iter().zip(&texts).map(|(step, text)| match step {
        Rows(_) => Rows(text),
        Mark(at, _) => Mark(*at, text),
        End(_) => End(text),
        other => *other,
    });
    check(Arc::new(spec), &input(), &steps.collect::<Vec<_>>()).expect("sessions");
}

#[test]
fn sessions_grow_meet_and_come_apart() {
    let script = [
        Rows("+1 1 3; +1 1 9; +1 1 30; +1 2 9; +1 1 null; +1 null 5"),
        Mark(0, "+1 1 3 3 19; +1 1 9 3 19; +1 1 30 30 40; +1 2 9 9 19; +1 null 5 5 15"),
        // A row at the end of a session begins another.
        Rows("+1 2 19"),
        Mark(0, "+1 2 19 19 29"),
        Recover,
        Rows("+1 1 15; +1 1 22"),
        Mark(
            0,
            "-1 1 3 3 19; +1 1 3 3 40; -1 1 9 3 19; +1 1 9 3 40; +1 1 15 3 40; +1 1 22 3 40; -1 1 30 30 40; +1 1 30 3 40",
        ),
        Rows("-1 1 15"),
        Mark(
            0,
            "-1 1 15 3 40; -1 1 3 3 40; +1 1 3 3 19; -1 1 9 3 40; +1 1 9 3 19; -1 1 22 3 40; +1 1 22 22 40; -1 1 30 3 40; +1 1 30 22 40",
        ),
        Recover,
        Rows("-1 2 9; +1 1 50; -1 1 50"),
        Mark(0, "-1 2 9 9 19"),
        // Two rows that are alike.
        Rows("+2 3 7"),
        Mark(0, "+2 3 7 7 17"),
        Rows("-1 3 7"),
        Mark(0, "-1 3 7 7 17"),
    ];
    run(session(false, None), &script);
}

#[test]
fn a_session_is_said_when_the_watermark_has_reached_its_end() {
    let script = [
        Rows("+1 1 3; +1 1 9; +1 2 4"),
        Mark(13, ""),
        Recover,
        Rows("+1 1 18"),
        Mark(14, "+1 2 4 4 14"),
        Rows("+1 3 15; -1 3 15; +1 4 15; +1 4 16"),
        Mark(26, "+1 4 15 15 26; +1 4 16 15 26"),
        // Taken back before the session has closed.
        Rows("-1 1 18; +1 1 27; +1 1 28"),
        Mark(27, "+1 1 3 3 19; +1 1 9 3 19"),
        Recover,
        End("+1 1 27 27 38; +1 1 28 27 38"),
    ];
    run(session(true, None), &script);
}

#[test]
fn a_longest_length_cuts_where_it_is_reached() {
    let changes = [
        Rows("+1 1 0; +1 1 8; +1 1 16; +1 1 24; +1 1 32"),
        Mark(0, "+1 1 0 0 20; +1 1 8 0 20; +1 1 16 0 20; +1 1 24 24 42; +1 1 32 24 42"),
        Rows("-1 1 0"),
        Mark(
            0,
            "-1 1 0 0 20; -1 1 8 0 20; +1 1 8 8 28; -1 1 16 0 20; +1 1 16 8 28; -1 1 24 24 42; +1 1 24 8 28; -1 1 32 24 42; +1 1 32 32 42",
        ),
    ];
    run(session(false, Some(20)), &changes);
    let closes = [
        Rows("+1 1 0; +1 1 8; +1 1 16; +1 1 24; +1 1 32"),
        Mark(20, "+1 1 0 0 20; +1 1 8 0 20; +1 1 16 0 20"),
        Recover,
        // It becomes the first row behind the cut.
        Rows("+1 1 21"),
        Mark(40, ""),
        Mark(41, "+1 1 21 21 41; +1 1 24 21 41; +1 1 32 21 41"),
    ];
    run(session(true, Some(20)), &closes);
}

#[test]
fn months_are_a_gap() {
    let sessions = Sessions { gap: Length::Months(1), most: None };
    let spec = Session::new(&input(), 1, vec![], sessions).expect("a timestamp");
    let script = [
        Rows("+1 1 1970-01-31T00:00:00; +1 1 1970-02-28T00:00:00"),
        // The first ends where February does, so that the second row begins another.
        Mark(
            0,
            "+1 1 1970-01-31T00:00:00 1970-01-31T00:00:00 1970-02-28T00:00:00; \
             +1 1 1970-02-28T00:00:00 1970-02-28T00:00:00 1970-03-28T00:00:00",
        ),
    ];
    check(Arc::new(spec), &input(), &script).expect("sessions");
}

#[test]
fn state_goes_with_what_has_closed() {
    for on_close in [true, false] {
        let mut bench = Bench::new(Arc::new(session(on_close, None))).expect("built");
        let mut most = 0;
        for epoch in 0..300_i64 {
            let keys: ArrayRef = Arc::new(Int64Array::from_iter_values((0..200).map(|i| epoch * 200 + i)));
            let times: ArrayRef = Arc::new(TimestampSecondArray::from(vec![epoch; 200]));
            let rows = RecordBatch::try_new(input(), vec![keys, times]).expect("two columns");
            bench.changes(0, Changes::insertions(rows)).expect("rows");
            bench.mark(EventTime(epoch * S)).expect("a mark");
            if epoch == 50 {
                most = bench.bytes();
            }
        }
        assert!(bench.bytes() < 3 * most, "{} bytes, {most} before", bench.bytes());
    }
}

type Row = (i64, i64);

/// The sessions of `rows`, with their bounds, of those that have closed at `until`.
fn sorted(rows: &BTreeMap<Row, i64>, most: Option<i64>, until: i64) -> BTreeMap<(Row, Row), i64> {
    let mut given = BTreeMap::new();
    let mut session: Vec<(Row, i64)> = vec![];
    let mut flush = |session: &mut Vec<(Row, i64)>| {
        let (Some((first, _)), Some((last, _))) = (session.first(), session.last()) else { return };
        let bounds = (first.1, (last.1 + 10).min(most.map_or(i64::MAX, |most| first.1 + most)));
        session.drain(..).filter(|_| bounds.1 <= until).for_each(|(row, n)| {
            given.insert((row, bounds), n);
        });
    };
    for (row, n) in rows.iter().filter(|(_, n)| **n > 0) {
        let goes_on = match (session.first(), session.last()) {
            (Some((first, _)), Some((last, _))) => {
                first.0 == row.0 && row.1 - last.1 < 10 && most.is_none_or(|most| row.1 - first.1 < most)
            }
            _ => false,
        };
        if !goes_on {
            flush(&mut session);
        }
        session.push((*row, *n));
    }
    flush(&mut session);
    given
}

/// Adds what was said to `content`.
fn take_in(content: &mut BTreeMap<(Row, Row), i64>, changes: &Changes) {
    for line in show(changes).expect("text") {
        let cells: Vec<&str> = line.split_whitespace().collect();
        let time = |cell: &str| cell.parse::<chrono::NaiveDateTime>().expect("a time").and_utc().timestamp();
        let key = ((cells[1].parse().expect("a number"), time(cells[2])), (time(cells[3]), time(cells[4])));
        *content.entry(key).or_default() += cells[0].parse::<i64>().expect("a weight");
    }
    content.retain(|_, n| *n != 0);
}

#[test]
fn random_changes_give_what_sorting_gives() {
    let cases = [
        (false, None, true),
        (false, None, false),
        (false, Some(25), true),
        (true, None, true),
        (true, None, false),
        (true, Some(25), true),
        (true, Some(25), false),
    ];
    for (seed, (on_close, most, takes_back)) in (0..42_u64).zip(cases.into_iter().cycle()) {
        let mut random = StdRng::seed_from_u64(seed);
        let mut bench = Bench::new(Arc::new(session(on_close, most))).expect("built");
        let (mut rows, mut content): (BTreeMap<Row, i64>, BTreeMap<(Row, Row), i64>) = Default::default();
        let mut watermark = 0;
        for epoch in 0..80 {
            for _ in 0..random.random_range(0..3) {
                let (mut keys, mut times, mut weights) = (vec![], vec![], vec![]);
                for _ in 0..random.random_range(1..12) {
                    let row = (random.random_range(0..4), watermark + random.random_range(0..60));
                    let there = rows.entry(row).or_default();
                    let weight = if takes_back && *there > 0 && random.random_bool(0.6) { -1 } else { 1 };
                    *there += weight;
                    keys.push(row.0);
                    times.push(row.1);
                    weights.push(weight);
                }
                let columns: Vec<ArrayRef> =
                    vec![Arc::new(Int64Array::from(keys)), Arc::new(TimestampSecondArray::from(times))];
                let batch = RecordBatch::try_new(input(), columns).expect("two columns");
                bench.changes(0, Changes::weighted(batch, weights.into()).expect("weights")).expect("rows");
            }
            watermark += random.random_range(0..5);
            for changes in bench.mark(EventTime(watermark * S)).expect("a mark") {
                take_in(&mut content, &changes);
            }
            let until = if on_close { watermark } else { i64::MAX };
            assert_eq!(content, sorted(&rows, most, until), "seed {seed}, epoch {epoch}");
            if random.random_bool(0.2) {
                bench.recover().expect("a checkpoint");
            }
        }
    }
}
