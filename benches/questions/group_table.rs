//! What does it cost to find a row's group?
//!
//! `cargo bench --workspace --bench group_table`: keys of 8192 rows interned into an index that knows them.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, StringViewArray};
use arrow::datatypes::{Field, Schema};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use millstream_engine::key::mix;
use millstream_engine::state::key_index::KeyIndex;

const ROWS: usize = 8192;

fn intern(c: &mut Criterion) {
    let mut group = c.benchmark_group("intern");
    group.throughput(Throughput::Elements(ROWS as u64));
    for keys in [100u64, 10_000, 1_000_000] {
        let number = |i: usize| (mix(i as u64) % keys) as i64;
        let ints: ArrayRef = Arc::new(Int64Array::from_iter_values((0..ROWS).map(number)));
        let texts: ArrayRef =
            Arc::new(StringViewArray::from_iter_values((0..ROWS).map(|i| format!("a longer key {}", number(i)))));
        for (name, columns) in
            [("bigint", vec![ints.clone()]), ("text", vec![texts.clone()]), ("bigint+text", vec![ints, texts])]
        {
            let fields: Vec<_> = columns.iter().map(|c| Field::new("k", c.data_type().clone(), true)).collect();
            let Ok(mut index) = KeyIndex::new(&Schema::new(fields)) else { continue };
            let mut slots = vec![];
            group.bench_function(format!("{name}/{keys}"), |b| {
                b.iter(|| index.intern(&columns, ROWS, &mut slots).is_ok());
            });
        }
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20);
    targets = intern
}
criterion_main!(benches);
