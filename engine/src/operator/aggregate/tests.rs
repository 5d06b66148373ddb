//! Tests of aggregation.
