//! How many digits a decimal has.

use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DECIMAL256_MAX_PRECISION, DataType};

/// The digits of the longest decimal that is stored.
pub(super) const MAX_DIGITS: u8 = DECIMAL128_MAX_PRECISION;

/// The digits of a decimal, and those behind the point.
#[derive(Clone, Copy, Debug)]
pub(super) struct Digits {
    pub(super) precision: i16,
    pub(super) scale: i16,
}

impl Digits {
    /// Those of a decimal or of an integer.
    pub(super) fn of(data_type: &DataType) -> Option<Self> {
        let (precision, scale) = match data_type {
            DataType::Int8 | DataType::UInt8 => (3, 0),
            DataType::Int16 | DataType::UInt16 => (5, 0),
            DataType::Int32 | DataType::UInt32 => (10, 0),
            DataType::Int64 | DataType::UInt64 => (20, 0),
            DataType::Decimal32(p, s) | DataType::Decimal64(p, s) | DataType::Decimal128(p, s) => (*p, *s),
            _ => return None,
        };
        Some(Digits { precision: i16::from(precision), scale: i16::from(scale) })
    }

    pub(super) fn whole(self) -> i16 {
        self.precision - self.scale
    }

    /// A type of 256 bits.
    pub(super) fn wide(self) -> DataType {
        let most = i16::from(DECIMAL256_MAX_PRECISION);
        DataType::Decimal256(self.precision.clamp(1, most) as u8, self.scale.clamp(0, most) as i8)
    }
}
