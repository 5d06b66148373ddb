//! Who may do what: users, their rights on streams, and the one place that decides ([`Access::decide`]).
//!
//! Nothing is allowed that is not granted. Three rights there are, on a stream (or view) or on all: `read`, `write`, and
//! `admin`, which has the others in it. A session asks as a [`Principal`]: the owner of the store, who may do all, or a
//! user, or somebody without a name, who may do all in a store without users and nothing in one that has some.
//!
//! What is decided here is asked for by `session/gate.rs` for each statement, and by `session/lookup.rs` for each name that
//! a query reads.

mod access;
mod hidden;
mod password;
mod principal;
mod right;
mod throttle;
mod vault;

pub use access::Access;
pub use hidden::Hidden;
pub(crate) use password::{check_password, hash_password, is_password};
pub use principal::Principal;
pub use right::{Need, Right, Target};
pub(crate) use throttle::Throttle;
pub use vault::Key;
