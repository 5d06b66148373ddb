//! The words of the libraries below in those of SQL: types as they are declared, literals as they are written, and
//! what a user can do instead of what a planner could not.

use millstream_engine::nearest::nearest;

/// A message in our words, with a hint where there is one.
pub(super) struct Worded {
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

/// Functions of other systems, and what to write here.
const ELSEWHERE: [(&str, &str); 22] = [
    ("charindex", "Write strpos(text, part)."),
    ("datediff", "Subtract: at - since, or date_part('epoch', at) - date_part('epoch', since)."),
    ("date_add", "Write at + INTERVAL '1 day'."),
    ("date_diff", "Subtract: at - since, or date_part('epoch', at) - date_part('epoch', since)."),
    ("date_sub", "Write at - INTERVAL '1 day'."),
    ("dateadd", "Write at + INTERVAL '1 day'."),
    ("epoch", "Write date_part('epoch', at)."),
    ("format", "Write the parts with ||."),
    ("getdate", "Write now()."),
    ("group_concat", "Write string_agg(text, ',')."),
    ("if", "Write CASE WHEN … THEN … ELSE … END."),
    ("ifnull", "Write coalesce(a, b)."),
    ("iif", "Write CASE WHEN … THEN … ELSE … END."),
    ("len", "Write length(text)."),
    ("listagg", "Write string_agg(text, ',')."),
    ("mode", "Count with GROUP BY and take the first by ORDER BY count(*) DESC."),
    ("strftime", "Write to_char(at, '%Y-%m-%d')."),
    ("time_bucket", "Write date_bin(INTERVAL '5 minutes', at), or TUMBLE."),
    ("timestampdiff", "Subtract: at - since."),
    ("to_number", "Write CAST(text AS DECIMAL(10, 2))."),
    ("toint", "Write CAST(a AS INT)."),
    ("unix_timestamp", "Write date_part('epoch', at)."),
];

/// Those that need OVER.
const OF_WINDOWS: [&str; 11] = [
    "row_number",
    "rank",
    "dense_rank",
    "percent_rank",
    "cume_dist",
    "ntile",
    "lag",
    "lead",
    "first_value",
    "last_value",
    "nth_value",
];

/// What DataFusion or Arrow says, in our words.
pub(super) fn reword(message: &str) -> Worded {
    // What is behind it is an address to which its own faults are reported.
    let message = match message.split_once("\nThis issue was likely caused by a bug") {
        Some((_, behind)) if behind.contains("No function matches") => behind,
        Some((before, _)) => before,
        None => message,
    };
    let message = sql_words(message);
    let message = without_kinds(&message);
    let known = [function, signature, operator, value, condition, grouping, rows, parameter, other];
    known.iter().find_map(|rule| rule(message)).unwrap_or_else(|| worded(message.trim_end_matches(['.', '!']), None))
}

fn worded(message: impl Into<String>, hint: Option<&str>) -> Worded {
    Worded { message: message.into(), hint: hint.map(str::to_owned) }
}

/// `message` without the names of errors before it.
fn without_kinds(mut message: &str) -> &str {
    const KINDS: [&str; 12] = [
        "Error during planning: ",
        "This feature is not implemented: ",
        "Execution error: ",
        "Schema error: ",
        "Invalid or Unsupported Configuration: ",
        "Arrow error: ",
        "Cast error: ",
        "Parser error: ",
        "Compute error: ",
        "Invalid argument error: ",
        "Internal error: ",
        "Optimizer rule 'check_constants' failed\ncaused by\n",
    ];
    while let Some(rest) = KINDS.iter().find_map(|kind| message.strip_prefix(kind)) {
        message = rest;
    }
    message
}

/// The text between `before` and `after`.
fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    text.split_once(before)?.1.split_once(after).map(|(inner, _)| inner)
}

/// `Invalid function 'x'.\nDid you mean 'y'?`
fn function(message: &str) -> Option<Worded> {
    let name = between(message, "nvalid function '", "'")?.to_lowercase();
    if OF_WINDOWS.contains(&name.as_str()) {
        let hint = format!("Write {name}(…) OVER (PARTITION BY … ORDER BY …).");
        return Some(Worded { message: format!("function \"{name}\" is written without OVER"), hint: Some(hint) });
    }
    let meant = between(message, "Did you mean '", "'").and_then(|near| nearest(&name, [near]));
    let hint = match (ELSEWHERE.iter().find(|(other, _)| *other == name), meant) {
        (Some((_, hint)), _) => (*hint).to_owned(),
        (None, Some(near)) => format!("Did you mean {near}?"),
        (None, None) => "SHOW FUNCTIONS lists what there is.".to_owned(),
    };
    Some(Worded { message: format!("function \"{name}\" does not exist"), hint: Some(hint) })
}

/// `… No function matches the given name and argument types 'f(a, b)'. … Candidate functions:\n\tf(c)`
fn signature(message: &str) -> Option<Worded> {
    let (why, rest) = message.split_once("No function matches the given name and argument types '")?;
    let (call, rest) = rest.split_once("'.")?;
    let why = why.split_once(" failed with: ").map(|(_, why)| without_kinds(why).trim_end_matches([' ', '.']));
    let takes: Vec<_> = rest.lines().skip(1).map(str::trim).filter(|l| l.contains('(')).take(6).collect();
    let understood =
        |form: &&str| !["UserDefined", "Coercible", "VariadicAny", "Nullary"].iter().any(|w| form.contains(w));
    let takes: Vec<_> = takes.into_iter().filter(understood).filter(|form| !form.contains("Duration")).collect();
    let takes: Vec<_> = takes.iter().map(|t| t.replace("Decimal", "DECIMAL").replace("Interval", "INTERVAL")).collect();
    let hint = match (why.filter(|why| !why.is_empty()), takes.is_empty()) {
        (Some(why), _) => format!("It is used otherwise: {why}."),
        (None, false) => format!("There is {}: cast the arguments to types that it takes.", takes.join(", ")),
        (None, true) => "Cast the arguments to types that it takes.".to_owned(),
    };
    Some(Worded { message: format!("function {} does not exist", sql_words(call)), hint: Some(hint) })
}

/// Operators over types that do not meet.
fn operator(message: &str) -> Option<Worded> {
    let operands = between(message, "annot coerce arithmetic expression ", " to valid types")
        .or_else(|| between(message, "annot infer common argument type for comparison operation ", "\n"))
        .or_else(|| message.split_once("annot infer common argument type for comparison operation ").map(|(_, o)| o))?;
    const OPERATORS: [&str; 16] = [
        " IS NOT DISTINCT FROM ",
        " IS DISTINCT FROM ",
        " >= ",
        " <= ",
        " != ",
        " <> ",
        " = ",
        " > ",
        " < ",
        " + ",
        " - ",
        " * ",
        " / ",
        " % ",
        " || ",
        " & ",
    ];
    let (at, op) = OPERATORS.iter().filter_map(|op| Some((operands.find(op)?, *op))).min()?;
    let (left, right) = (operands[..at].trim(), operands[at + op.len()..].trim().trim_end_matches('.'));
    let hint = "Cast one of them to the type of the other.";
    Some(worded(format!("operator {} does not take {left} and {right}", op.trim()), Some(hint)))
}

/// Values that are not of a type, or do not fit it.
fn value(message: &str) -> Option<Worded> {
    const TRY: &str = "TRY_CAST in place of CAST gives NULL for such a value.";
    const NULLIF: &str = "Write nullif(…, 0) for the divisor, to get NULL.";
    let (before, message) = match message.split_once(": Cast error: ").or_else(|| message.split_once(": Arrow error: "))
    {
        Some((expression, rest)) => (format!("{expression}: "), without_kinds(rest)),
        None => (String::new(), message),
    };
    let message = message.trim_end_matches('.');
    let of_type = message.strip_prefix("Cannot cast string ").and_then(|m| m.split_once(" to value of "));
    if let Some((text, data_type)) = of_type {
        let data_type = data_type.trim_end_matches(" type");
        return Some(worded(format!("{before}{text} is not a {data_type}"), Some(TRY)));
    }
    // What is wrong with it counts characters and names fields of a form that is not the only one.
    let no_time = message.split_once("rror parsing timestamp from '").and_then(|(_, rest)| rest.split_once("': "));
    if let Some((text, _)) = no_time {
        let hint = "Write it like '2026-01-31 10:00:00'; TRY_CAST in place of CAST gives NULL for what is none.";
        return Some(worded(format!("{before}'{text}' is not a TIMESTAMP"), Some(hint)));
    }
    let out_of_range = message.strip_prefix("value of ").and_then(|m| m.split_once(" is out of range "));
    let no_room = message.strip_prefix("Can't cast value ").and_then(|m| m.split_once(" to type "));
    if let Some((value, data_type)) = out_of_range.or(no_room) {
        return Some(worded(format!("{before}{value} does not fit {data_type}"), Some(TRY)));
    }
    if let Some((value, rest)) = message.split_once(" is too large to store in a ") {
        let most = rest.split_once("Max is ").map_or(String::new(), |(_, most)| format!(": the largest is {most}"));
        return Some(worded(format!("{before}{value} does not fit{most}"), Some(TRY)));
    }
    if let Some((_, sum)) = message.split_once("Overflow happened on: ") {
        let hint = "Cast an operand to a type with more room: DECIMAL(38, 0) or DOUBLE.";
        return Some(worded(format!("{before}overflow: {sum} does not fit its type"), Some(hint)));
    }
    // What was evaluated row by row says so in our own words already.
    if message.contains("CAST(") && (message.contains(" is not a ") || message.contains(" is not an ")) {
        return Some(worded(format!("{before}{message}"), Some(TRY)));
    }
    if message.ends_with(": division by zero") {
        return Some(worded(format!("{before}{message}"), Some(NULLIF)));
    }
    if message.eq_ignore_ascii_case("divide by zero error") || message.eq_ignore_ascii_case("divide by zero") {
        return Some(worded(format!("{before}divide by zero"), Some(NULLIF)));
    }
    None
}

/// `Cannot create filter with non-boolean predicate 'p' returning T`
fn condition(message: &str) -> Option<Worded> {
    let rest = message.split_once("annot create filter with non-boolean predicate '")?.1;
    let (predicate, data_type) = rest.rsplit_once("' returning ")?;
    let hint = "Compare it with something: a = b, a > 0, a IS NOT NULL.";
    Some(worded(format!("a condition is a BOOLEAN, and {predicate} is {data_type}"), Some(hint)))
}

/// Columns beside an aggregate.
fn grouping(message: &str) -> Option<Worded> {
    let column = between(message, "column \"", "\" must appear in the GROUP BY clause")?;
    let name = column.rsplit('.').next().unwrap_or(column);
    let hint = format!("Add it to GROUP BY, or take one of its values: max({name}), first_value({name}).");
    Some(Worded {
        message: format!("column \"{column}\" is neither in GROUP BY nor in an aggregate"),
        hint: Some(hint),
    })
}

/// Rows of VALUES that are too short or too long.
fn rows(message: &str) -> Option<Worded> {
    let rest = message.split_once("nconsistent data length across values list: got ")?.1;
    let (given, rest) = rest.split_once(" values in row ")?;
    let (row, expected) = rest.split_once(" but expected ")?;
    let row: usize = row.parse().ok()?;
    let hint = "Give a value for each column, or name the columns: INSERT INTO s (a, b) VALUES (1, 2).";
    Some(worded(format!("row {} has {given} of {expected} values", row + 1), Some(hint)))
}

/// `Placeholder '$1' was not provided a value for execution`
fn parameter(message: &str) -> Option<Worded> {
    let name = between(message, "laceholder '", "' was not provided a value")?;
    let hint = "Clients bind values to a prepared statement; write the value where there is none.";
    Some(worded(format!("parameter {name} has no value"), Some(hint)))
}

/// Single sentences.
fn other(message: &str) -> Option<Worded> {
    if let Some((_, by)) = message.split_once("rder by column out of bounds, specified: ") {
        let (given, most) = by.split_once(", max: ")?;
        let most = if most.trim() == "1" { "1 column".to_owned() } else { format!("{most} columns") };
        return Some(worded(format!("ORDER BY {given}: the result has {most}"), None));
    }
    if message.starts_with("Physical plan does not support logical expression") {
        let hint = "Write it as a JOIN, or compute it first: WITH a AS (SELECT …) SELECT ….";
        return Some(worded("a subquery of this form cannot be computed", Some(hint)));
    }
    if message.contains("queries have different number of columns") {
        return Some(worded(
            "the sides of a set operation have different numbers of columns",
            Some("Select as many columns on each side."),
        ));
    }
    if message.starts_with("Aggregate functions are not allowed in the WHERE clause") {
        return Some(worded("an aggregate cannot stand in WHERE", Some("Write HAVING behind GROUP BY.")));
    }
    if let Some(given) = message.strip_prefix("Expected LIMIT to be an integer or null, but got ") {
        return Some(worded(format!("LIMIT takes a whole number, not {given}"), None));
    }
    None
}

/// `text` with types as SQL has them and literals as they are written. What stands in quotes is left as it is.
fn sql_words(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut before = ' ';
    while let Some(c) = rest.chars().next() {
        // `Can't` is no quote.
        let quoted = c == '\'' && !before.is_alphanumeric();
        let len = if quoted {
            rest[1..].find('\'').map_or(rest.len(), |end| end + 2)
        } else if c.is_ascii_alphabetic() && !(before.is_alphanumeric() || before == '_') {
            let word = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len());
            if let Some((words, len)) = type_or_literal(&rest[..word], &rest[word..]) {
                out.push_str(&words);
                before = ' ';
                rest = &rest[word + len..];
                continue;
            }
            word
        } else {
            c.len_utf8()
        };
        out.push_str(&rest[..len]);
        before = rest[..len].chars().next_back().unwrap_or(' ');
        rest = &rest[len..];
    }
    out
}

/// What `word`, a name of an Arrow type, says in SQL with what is behind it; and how much of that it takes.
fn type_or_literal(word: &str, behind: &str) -> Option<(String, usize)> {
    let plain = match word {
        "Int8" => "TINYINT",
        "Int16" => "SMALLINT",
        "Int32" => "INT",
        "Int64" => "BIGINT",
        "UInt8" => "TINYINT UNSIGNED",
        "UInt16" => "SMALLINT UNSIGNED",
        "UInt32" => "INT UNSIGNED",
        "UInt64" => "BIGINT UNSIGNED",
        "Float16" | "Float32" => "REAL",
        "Float64" => "DOUBLE",
        "Utf8" | "LargeUtf8" | "Utf8View" => "TEXT",
        "Binary" | "LargeBinary" | "BinaryView" => "BYTEA",
        "Boolean" => "BOOLEAN",
        "Date32" | "Date64" => "DATE",
        "Time32" | "Time64" => "TIME",
        "Timestamp" | "Interval" | "Decimal32" | "Decimal64" | "Decimal128" | "Decimal256" => "",
        "IntervalMonthDayNano" => "",
        _ => return None,
    };
    let inner = parenthesised(behind);
    let taken = inner.map_or(0, |inner| inner.len() + 2);
    Some(match (word, inner) {
        ("Timestamp", Some(inner)) => (if inner.contains(',') { "TIMESTAMPTZ" } else { "TIMESTAMP" }.to_owned(), taken),
        ("Interval", Some(_)) => ("INTERVAL".to_owned(), taken),
        ("Time32" | "Time64", Some(_)) => ("TIME".to_owned(), taken),
        ("IntervalMonthDayNano", Some(_)) => ("INTERVAL '…'".to_owned(), taken),
        (decimal, Some(inner)) if decimal.starts_with("Decimal") => {
            match inner.split(',').collect::<Vec<_>>().as_slice() {
                [value, _, _] => (value.trim_start_matches("Some(").trim_end_matches(')').to_owned(), taken),
                _ => (format!("DECIMAL({inner})"), taken),
            }
        }
        (decimal, None) if decimal.starts_with("Decimal") => ("DECIMAL".to_owned(), 0),
        (_, Some(inner)) => match inner.strip_prefix('"').and_then(|i| i.strip_suffix('"')) {
            Some(text) => (format!("'{text}'"), taken),
            None => (inner.to_owned(), taken),
        },
        (_, None) if plain.is_empty() => return None,
        (_, None) => (plain.to_owned(), 0),
    })
}

/// What stands in the parentheses that `text` begins with.
fn parenthesised(text: &str) -> Option<&str> {
    let inner = text.strip_prefix('(')?;
    let (mut depth, mut quoted) = (1_usize, false);
    for (at, c) in inner.char_indices() {
        match c {
            '"' => quoted = !quoted,
            '(' if !quoted => depth += 1,
            ')' if !quoted => {
                depth -= 1;
                if depth == 0 {
                    return inner.get(..at);
                }
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_and_literals_are_those_of_sql() {
        for (said, ours) in [
            ("Utf8View + Int64", "TEXT + BIGINT"),
            ("t.a + Int64(1) > Decimal128(1.5,2,1)", "t.a + 1 > 1.5"),
            ("Utf8(\"a (b\") || t.c", "'a (b' || t.c"),
            ("Timestamp(µs) and Timestamp(µs, \"UTC\")", "TIMESTAMP and TIMESTAMPTZ"),
            ("Decimal128(10, 2), Interval(MonthDayNano)", "DECIMAL(10, 2), INTERVAL"),
            ("Can't cast 'Int64' to Int64", "Can't cast 'Int64' to BIGINT"),
            ("MyInt64 Int64s Timestamp", "MyInt64 Int64s Timestamp"),
        ] {
            assert_eq!(sql_words(said), ours);
        }
    }

    #[test]
    fn what_the_libraries_say_is_said_in_our_words() {
        for (said, ours, hint) in [
            ("Invalid function 'mode'.\nDid you mean 'md5'?", "function \"mode\" does not exist", "GROUP BY"),
            (
                "Invalid function 'uper'.\nDid you mean 'upper'?",
                "function \"uper\" does not exist",
                "Did you mean upper?",
            ),
            (
                "Invalid function 'nosuch'.\nDid you mean 'cosh'?",
                "function \"nosuch\" does not exist",
                "SHOW FUNCTIONS",
            ),
            (
                "Internal error: Function 'sum' failed.\nThis issue was likely caused by a bug. No function matches the given \
                 name and argument types 'sum(Utf8View)'. You might cast.\n\tCandidate functions:\n\tsum(Int64)",
                "function sum(TEXT) does not exist",
                "There is sum(BIGINT)",
            ),
            ("Cast error: Cannot cast string 'x' to value of Int64 type", "'x' is not a BIGINT", "TRY_CAST"),
            (
                "Execution error: CAST(v AS INT): 'x' is not an INTEGER",
                "CAST(v AS INT): 'x' is not an INTEGER",
                "TRY_CAST",
            ),
            ("Execution error: 1 / x: division by zero", "1 / x: division by zero", "nullif"),
            ("Cast error: Can't cast value -1 to type UInt64", "-1 does not fit BIGINT UNSIGNED", "TRY_CAST"),
            (
                "Cannot coerce arithmetic expression Utf8View + Int64 to valid types",
                "operator + does not take TEXT and BIGINT",
                "Cast",
            ),
            (
                "Cannot create filter with non-boolean predicate 't.a' returning Utf8",
                "a condition is a BOOLEAN, and t.a is TEXT",
                "Compare",
            ),
            (
                "Inconsistent data length across values list: got 1 values in row 0 but expected 12",
                "row 1 has 1 of 12 values",
                "name the columns",
            ),
        ] {
            let worded = reword(said);
            assert_eq!(worded.message, ours);
            assert!(worded.hint.as_deref().unwrap_or_default().contains(hint), "{said}: {:?}", worded.hint);
        }
    }
}
