//! Whole-system tests, in one binary.

mod consistency;
mod tidy;
