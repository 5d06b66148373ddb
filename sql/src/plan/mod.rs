//! Planning: a checked statement becomes DataFusion's logical plan, with tables found by our own resolver
//! and windows as nodes of our own.
