//! The tokens of a statement as the parser takes them, where ours is written otherwise.

use datafusion::sql::sqlparser::tokenizer::TokenWithSpan;

use super::as_of::asof_kinds;
use super::session::partition_last;
use super::trailing::trailing_options_first;

/// Puts `tokens`, of one statement, so that the parser reads them.
pub(super) fn put_for_the_parser(tokens: &mut Vec<TokenWithSpan>) {
    trailing_options_first(tokens);
    asof_kinds(tokens);
    partition_last(tokens);
}
