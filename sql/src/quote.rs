//! Names as SQL writes them.

use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::{ALL_KEYWORDS, RESERVED_FOR_IDENTIFIER, RESERVED_FOR_TABLE_ALIAS};
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

/// `name` as SQL, quoted where it would otherwise be read as something else.
pub fn quote_name(name: &str) -> String {
    let plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if plain && !is_reserved(name) { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

/// Whether a word can start or end something where a name stands.
fn is_reserved(name: &str) -> bool {
    let Ok(tokens) = Tokenizer::new(&GenericDialect, name).tokenize() else { return true };
    let [Token::Word(word)] = tokens.as_slice() else { return true };
    let more = ["emit", "watermark", "primary", "constraint", "table", "select", "from", "user", "like", "check"];
    RESERVED_FOR_IDENTIFIER.contains(&word.keyword)
        || (ALL_KEYWORDS.binary_search(&name.to_uppercase().as_str()).is_ok()
            && RESERVED_FOR_TABLE_ALIAS.contains(&word.keyword))
        || more.contains(&name)
}
