//! The commands of the shell that are not SQL: `\d`, `\watch`, ….

/// A command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// `\?`
    Help,
    /// `\d [name]`
    Describe(Option<String>),
    /// `\dt`
    Streams,
    /// `\dv`
    Views,
    /// `\dj`
    Jobs,
    /// `\nodes`
    Nodes,
    /// `\df [pattern]`
    Functions(Option<String>),
    /// `\dc [pattern]`
    Connectors(Option<String>),
    /// `\ds`
    Settings,
    /// `\timing [on|off]`
    Timing(Option<bool>),
    /// `\x [on|off|auto]`
    Expanded(Option<Switch>),
    /// `\limit [rows]`: 0 is no limit.
    Limit(Option<usize>),
    /// `\o [file]`
    Output(Option<String>),
    /// `\i file`
    Include(String),
    /// `\watch query`
    Watch(String),
    /// `\q`
    Quit,
}

/// The ways of `\x`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Switch {
    /// Always.
    On,
    /// Never.
    Off,
    /// Where the table does not fit.
    Auto,
}

/// Names, arguments and meaning, for help and completion.
pub(crate) const COMMANDS: &[(&str, &str, &str)] = &[
    ("\\?", "", "this help"),
    ("\\d", "[NAME]", "streams and views, or the columns of one"),
    ("\\dt", "", "streams"),
    ("\\dv", "", "views"),
    ("\\dj", "", "running queries (also \\j)"),
    ("\\nodes", "", "the nodes of the cluster (also \\dn)"),
    ("\\df", "[PATTERN]", "functions"),
    ("\\dc", "[PATTERN]", "connectors and their options"),
    ("\\ds", "", "settings"),
    ("\\watch", "SELECT …", "the result of a query, kept up to date in place (also \\w)"),
    ("\\x", "[on|off|auto]", "one line per column instead of one per row"),
    ("\\limit", "[ROWS]", "how many rows of a result are shown; 0 means all"),
    ("\\timing", "[on|off]", "how long statements take"),
    ("\\o", "[FILE]", "results go to a file (.csv, .json, else a table), or to the screen again"),
    ("\\i", "FILE", "execute the statements in a file"),
    ("\\q", "", "leave (also Ctrl-D, exit, quit)"),
];

/// Reads a line as a command. `None`: it is SQL. `Err`: what is wrong with it.
pub(crate) fn parse(line: &str) -> Option<Result<Command, String>> {
    let line = line.trim();
    match line.trim_end_matches(';').trim_end().to_ascii_lowercase().as_str() {
        "help" => return Some(Ok(Command::Help)),
        "exit" | "quit" => return Some(Ok(Command::Quit)),
        _ => {}
    }
    if !line.starts_with('\\') {
        return None;
    }
    let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let rest = rest.trim();
    let word = rest.trim_end_matches(';').trim_end();
    let optional = (!word.is_empty()).then(|| word.to_owned());
    let required = |what: &str| {
        if word.is_empty() { Err(format!("{name} needs {what}")) } else { Ok(word.to_owned()) }
    };
    Some(match name.trim_end_matches(';') {
        "\\?" | "\\h" | "\\help" => Ok(Command::Help),
        "\\d" => Ok(Command::Describe(optional)),
        "\\dt" => Ok(Command::Streams),
        "\\dv" => Ok(Command::Views),
        "\\dj" | "\\j" => Ok(Command::Jobs),
        "\\nodes" | "\\dn" => Ok(Command::Nodes),
        "\\df" => Ok(Command::Functions(optional)),
        "\\dc" => Ok(Command::Connectors(optional)),
        "\\ds" => Ok(Command::Settings),
        "\\timing" => switch(name, word).map(|s| Command::Timing(s.map(|s| s == Switch::On))),
        "\\x" => switch(name, word).map(Command::Expanded),
        "\\limit" => limit(word).map(Command::Limit),
        "\\o" => Ok(Command::Output(optional)),
        "\\i" => required("a file").map(Command::Include),
        "\\watch" | "\\w" => required("a query, such as SELECT * FROM hot").map(Command::Watch),
        "\\q" => Ok(Command::Quit),
        other => Err(format!("there is no command {other}; \\? shows them")),
    })
}

fn switch(name: &str, word: &str) -> Result<Option<Switch>, String> {
    match word.to_ascii_lowercase().as_str() {
        "" => Ok(None),
        "on" => Ok(Some(Switch::On)),
        "off" => Ok(Some(Switch::Off)),
        "auto" if name == "\\x" => Ok(Some(Switch::Auto)),
        _ => Err(format!("{name} takes on or off")),
    }
}

fn limit(word: &str) -> Result<Option<usize>, String> {
    if word.is_empty() {
        return Ok(None);
    }
    word.parse().map(Some).map_err(|_| "\\limit takes a number of rows; 0 means all".to_owned())
}

/// The text of `\?`.
pub(crate) fn help() -> String {
    let mut text = String::from(
        "SQL ends with ; and may go over several lines. Tab completes, Ctrl-C cancels, Ctrl-R searches the history.\n\n",
    );
    for (name, arguments, meaning) in COMMANDS {
        text += &format!("  {:<22} {meaning}\n", format!("{name} {arguments}"));
    }
    text += "
  CREATE STREAM s (…) WITH (connector = …);     a stream that is read from outside
  CREATE STREAM s AS SELECT … EMIT CHANGES;     a continuous query; its result is kept
  SELECT * FROM s;                              the result now
  SELECT * FROM s EMIT CHANGES;                 the result as it changes, until Ctrl-C
  EXPLAIN SELECT …; EXPLAIN ANALYZE STREAM s;   the plan; the live figures
  COPY (SELECT …) TO 'file.parquet';            an export
";
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ok(line: &str) -> Command {
        parse(line).unwrap().unwrap()
    }

    #[test]
    fn sql_is_not_a_command() {
        for sql in ["SELECT 1;", "", "helpful", "exit_codes", "-- \\d"] {
            assert_eq!(parse(sql), None, "{sql}");
        }
    }

    #[test]
    fn commands_with_their_arguments() {
        assert_eq!(ok("\\d"), Command::Describe(None));
        assert_eq!(ok(" \\d  hot ; "), Command::Describe(Some("hot".into())));
        assert_eq!(ok("\\dj;"), Command::Jobs);
        assert_eq!(ok("\\j"), Command::Jobs);
        assert_eq!((ok("\\nodes"), ok("\\dn;")), (Command::Nodes, Command::Nodes));
        assert_eq!(ok("\\timing"), Command::Timing(None));
        assert_eq!(ok("\\timing OFF"), Command::Timing(Some(false)));
        assert_eq!(ok("\\x auto"), Command::Expanded(Some(Switch::Auto)));
        assert_eq!(ok("\\limit 0"), Command::Limit(Some(0)));
        assert_eq!(ok("\\o a b.csv"), Command::Output(Some("a b.csv".into())));
        assert_eq!(ok("\\w SELECT *\nFROM hot;"), Command::Watch("SELECT *\nFROM hot".into()));
        for quit in ["exit", "QUIT;", "\\q", "quit"] {
            assert_eq!(ok(quit), Command::Quit);
        }
        assert_eq!(ok("help"), Command::Help);
    }

    #[test]
    fn wrong_commands_say_why() {
        for wrong in ["\\nope", "\\i", "\\watch", "\\timing maybe", "\\timing auto", "\\limit many"] {
            assert!(parse(wrong).unwrap().is_err(), "{wrong}");
        }
    }

    #[test]
    fn all_listed_commands_exist() {
        for (name, arguments, _) in COMMANDS {
            let line = if arguments.starts_with('[') { (*name).to_owned() } else { format!("{name} x") };
            assert!(parse(&line).unwrap().is_ok(), "{line}");
            assert!(help().contains(name));
        }
    }
}
