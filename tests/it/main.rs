//! Whole-system tests, in one binary.

// A test says what it expects by failing.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod cluster;
mod complete;
mod connectors;
mod consistency;
mod deliveries;
mod doors;
mod expressions;
mod late;
mod nodes;
mod poison;
mod random;
mod readme;
mod records;
mod refused;
mod tidy;
