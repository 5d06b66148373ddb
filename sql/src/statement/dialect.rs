//! The SQL dialect: sqlparser's generic one, with the words of streaming.

use std::any::TypeId;

use datafusion::sql::sqlparser::ast::{Expr, Ident};
use datafusion::sql::sqlparser::dialect::{Dialect, GenericDialect};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::Token;

/// The generic dialect, except that
/// - `EMIT` and `LATE TO` are never taken for an alias,
/// - `TABLE t` may stand as an argument (Flink's window functions),
/// - `FOR SYSTEM_TIME AS OF` is read,
/// - what only other systems have (MySQL's executed comments, Snowflake's stages) is off.
#[derive(Debug)]
pub(crate) struct StreamDialect;

const GENERIC: GenericDialect = GenericDialect;

/// Forwards to the generic dialect; the trait's own defaults are stricter.
macro_rules! as_generic {
    ($($method:ident)*) => { $(fn $method(&self) -> bool { GENERIC.$method() })* };
}

impl Dialect for StreamDialect {
    // sqlparser asks "which dialect is this" in many places: generic.
    fn dialect(&self) -> TypeId {
        TypeId::of::<GenericDialect>()
    }

    fn is_delimited_identifier_start(&self, ch: char) -> bool {
        GENERIC.is_delimited_identifier_start(ch)
    }

    fn is_identifier_start(&self, ch: char) -> bool {
        ch.is_alphabetic() || ch == '_'
    }

    fn is_identifier_part(&self, ch: char) -> bool {
        ch.is_alphabetic() || ch.is_ascii_digit() || ch == '$' || ch == '_'
    }

    as_generic! {
        supports_unicode_string_literal supports_partition_by_after_order_by supports_group_by_expr
        supports_group_by_with_modifier supports_left_associative_joins_without_parens supports_match_recognize
        supports_start_transaction_modifier supports_window_function_null_treatment_arg supports_dictionary_syntax
        supports_window_clause_named_window_reference supports_select_wildcard_except support_map_literal_syntax
        allow_extract_custom allow_extract_single_quotes supports_extract_comma_syntax
        supports_parens_around_table_factor supports_values_as_table_factor supports_limit_comma
        supports_from_first_select supports_projection_trailing_commas supports_try_convert
        supports_bitwise_shift_operators supports_struct_literal supports_empty_projections supports_nested_comments
        supports_string_escape_constant supports_array_typedef_with_brackets supports_filter_during_aggregation
        supports_select_wildcard_exclude supports_interval_options supports_select_wildcard_replace
        supports_select_wildcard_ilike supports_select_wildcard_rename supports_limit_by
        supports_comma_separated_trim supports_named_fn_args_with_assignment_operator
    }

    // The generic dialect reads none. Most that are read are refused by name.
    fn supports_table_versioning(&self) -> bool {
        true
    }

    // `1_000_000`, as PostgreSQL has it.
    fn supports_numeric_literal_underscores(&self) -> bool {
        true
    }

    fn supports_order_by_all(&self) -> bool {
        true
    }

    fn is_column_alias(&self, kw: &Keyword, parser: &mut Parser) -> bool {
        GENERIC.is_column_alias(kw, parser) && !starts_clause(parser)
    }

    fn is_table_alias(&self, kw: &Keyword, parser: &mut Parser) -> bool {
        GENERIC.is_table_alias(kw, parser) && !starts_clause(parser)
    }

    fn parse_prefix(&self, parser: &mut Parser) -> Option<Result<Expr, ParserError>> {
        let table = parser.peek_token_ref();
        let span = table.span;
        let is_table = matches!(&table.token, Token::Word(w) if w.keyword == Keyword::TABLE && w.quote_style.is_none());
        if !is_table || !matches!(parser.peek_nth_token_ref(1).token, Token::Word(_)) {
            return None;
        }
        parser.next_token();
        // A form of its own, so that it means something only where a table is expected.
        let prefix = Ident::with_span(span, "TABLE");
        let name = parser.parse_object_name(false);
        Some(name.map(|name| {
            let mut idents: Vec<_> = name.0.into_iter().filter_map(|part| part.as_ident().cloned()).collect();
            let value = match (idents.pop(), idents.is_empty()) {
                (Some(last), true) => Expr::Identifier(last),
                (last, _) => Expr::CompoundIdentifier(idents.into_iter().chain(last).collect()),
            };
            Expr::Prefixed { prefix, value: Box::new(value) }
        }))
    }
}

/// Whether the word that was just read starts a clause of ours rather than being an alias.
fn starts_clause(parser: &Parser) -> bool {
    let Token::Word(word) = &parser.get_current_token().token else { return false };
    if word.quote_style.is_some() {
        return false;
    }
    let next = &parser.peek_token_ref().token;
    word.value.eq_ignore_ascii_case("EMIT")
        || (word.value.eq_ignore_ascii_case("LATE") && matches!(next, Token::Word(w) if w.keyword == Keyword::TO))
}
