//! The routing hash and key groups.
//!
//! Rows of equal keys must meet in one task, today and after a restart with another binary on another
//! CPU, so the hash is fixed here and never changes: integers go through the SplitMix64 finalizer
//! (Steele, Lea, Flood, OOPSLA 2014), bytes through XXH3 (its 64-bit form is a stable specification).
//! Keys fall into [`KEY_GROUPS`] groups and groups into tasks, as contiguous ranges.

use std::ops::Range;

use arrow::array::{Array, ArrayRef, AsArray, UInt32Array};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Decimal128Type, Float32Type, Float64Type, Int64Type, IntervalMonthDayNanoType, UInt64Type,
};
use arrow::row::{RowConverter, SortField};
use xxhash_rust::xxh3::xxh3_64;

use crate::error::Result;
use crate::float::canonical_value;

/// Keys fall into this many groups, the unit in which state moves between tasks.
pub const KEY_GROUPS: u64 = 256;

const NULL: u64 = 0x9E37_79B9_7F4A_7C15;

/// The SplitMix64 finalizer.
pub fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The task of `parallelism` that owns the key with this hash.
pub fn task_of(hash: u64, parallelism: usize) -> usize {
    ((hash % KEY_GROUPS) as usize * parallelism) / KEY_GROUPS as usize
}

/// The key groups whose keys task `task` of `parallelism` owns.
pub fn key_groups(task: usize, parallelism: usize) -> Range<u64> {
    let parallelism = parallelism.max(1) as u64;
    let first = |task: u64| (task * KEY_GROUPS).div_ceil(parallelism);
    first(task as u64)..first(task as u64 + 1)
}

/// One hash per row over all `columns`, into `hashes` (cleared first). Equal keys (SQL equality, null
/// equal to null, -0.0 to 0.0, NaN to NaN) have equal hashes.
pub fn hash_rows(columns: &[ArrayRef], rows: usize, hashes: &mut Vec<u64>) -> Result<()> {
    hashes.clear();
    hashes.resize(rows, 0);
    for column in columns {
        hash_column(column, hashes)?;
    }
    Ok(())
}

fn hash_column(column: &ArrayRef, hashes: &mut [u64]) -> Result<()> {
    match column.data_type() {
        DataType::Utf8View => {
            let a = column.as_string_view();
            fold(a, hashes, |i| xxh3_64(a.value(i).as_bytes()));
        }
        DataType::Utf8 => {
            let a = column.as_string::<i32>();
            fold(a, hashes, |i| xxh3_64(a.value(i).as_bytes()));
        }
        DataType::LargeUtf8 => {
            let a = column.as_string::<i64>();
            fold(a, hashes, |i| xxh3_64(a.value(i).as_bytes()));
        }
        DataType::BinaryView => {
            let a = column.as_binary_view();
            fold(a, hashes, |i| xxh3_64(a.value(i)));
        }
        DataType::Float64 => {
            let a = column.as_primitive::<Float64Type>();
            fold(a, hashes, |i| mix(canonical_value(a.value(i)).to_bits()));
        }
        DataType::Float32 => {
            let a = column.as_primitive::<Float32Type>();
            fold(a, hashes, |i| mix(canonical_value(f64::from(a.value(i))).to_bits()));
        }
        DataType::Boolean => {
            let a = column.as_boolean();
            fold(a, hashes, |i| mix(u64::from(a.value(i))));
        }
        DataType::Decimal128(_, _) => {
            let a = column.as_primitive::<Decimal128Type>();
            fold(a, hashes, |i| mix(a.value(i) as u64 ^ mix((a.value(i) >> 64) as u64)));
        }
        DataType::Interval(arrow::datatypes::IntervalUnit::MonthDayNano) => {
            let a = column.as_primitive::<IntervalMonthDayNanoType>();
            fold(a, hashes, |i| {
                let v = a.value(i);
                mix(v.nanoseconds as u64 ^ mix((v.months as u64) << 32 | v.days as u32 as u64))
            });
        }
        DataType::UInt64 => {
            let a = column.as_primitive::<UInt64Type>();
            fold(a, hashes, |i| mix(a.value(i)));
        }
        t if t.is_integer() || t.is_temporal() => {
            let wide = cast(column, &DataType::Int64)?;
            let a = wide.as_primitive::<Int64Type>();
            fold(a, hashes, |i| mix(a.value(i) as u64));
        }
        other => {
            // Rare key types (lists, structs, dictionaries): hash their order-preserving row form.
            let converter = RowConverter::new(vec![SortField::new(other.clone())])?;
            let rows = converter.convert_columns(&[crate::float::canonical(column)?])?;
            for (h, row) in hashes.iter_mut().zip(rows.iter()) {
                *h = mix(*h ^ xxh3_64(row.as_ref()));
            }
        }
    }
    Ok(())
}

fn fold(array: &dyn Array, hashes: &mut [u64], hash: impl Fn(usize) -> u64) {
    if array.null_count() == 0 {
        for (i, h) in hashes.iter_mut().enumerate() {
            *h = mix(*h ^ hash(i));
        }
    } else {
        for (i, h) in hashes.iter_mut().enumerate() {
            *h = mix(*h ^ if array.is_null(i) { NULL } else { hash(i) });
        }
    }
}

/// For each of `parallelism` tasks, the indices of its rows, in order.
pub fn partition(hashes: &[u64], parallelism: usize) -> Vec<UInt32Array> {
    let mut parts: Vec<Vec<u32>> =
        (0..parallelism).map(|_| Vec::with_capacity(hashes.len() / parallelism + 16)).collect();
    for (i, h) in hashes.iter().enumerate() {
        parts[task_of(*h, parallelism)].push(i as u32);
    }
    parts.into_iter().map(UInt32Array::from).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Float64Array, Int32Array, Int64Array, StringArray, StringViewArray};

    use super::*;

    fn hashes(columns: Vec<ArrayRef>) -> Vec<u64> {
        let mut out = vec![];
        hash_rows(&columns, columns[0].len(), &mut out).expect("hashable");
        out
    }

    #[test]
    fn the_hash_is_what_it_always_was() {
        // A change of these numbers would send the keys of every existing store to the wrong tasks.
        let of_bits = [0, 1, u64::MAX].map(|bits| mix(mix(bits)));
        assert_eq!(hashes(vec![Arc::new(Int64Array::from(vec![0, 1, -1]))]), of_bits);
        assert_eq!(mix(1), 0x5692161d100b05e5);
        assert_eq!(xxh3_64(b"millstream"), xxh3_64("millstream".as_bytes()));
    }

    #[test]
    fn equal_keys_of_other_encodings_meet() {
        let a = hashes(vec![Arc::new(StringArray::from(vec![Some("a long text that is not inlined"), None]))]);
        let b = hashes(vec![Arc::new(StringViewArray::from(vec![Some("a long text that is not inlined"), None]))]);
        assert_eq!(a, b);
        assert_eq!(
            hashes(vec![Arc::new(Int32Array::from(vec![-7]))]),
            hashes(vec![Arc::new(Int64Array::from(vec![-7]))])
        );
        let f = hashes(vec![Arc::new(Float64Array::from(vec![0.0, -0.0, f64::NAN, -f64::NAN]))]);
        assert_eq!((f[0], f[2]), (f[1], f[3]));
    }

    #[test]
    fn every_task_owns_some_groups() {
        for p in 1..=16 {
            let mut owners: Vec<usize> = (0..KEY_GROUPS).map(|g| task_of(g, p)).collect();
            owners.dedup();
            assert_eq!(owners, (0..p).collect::<Vec<_>>());
        }
    }
}
