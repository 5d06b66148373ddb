//! What the server can do (`GetSqlInfo`) and the types it has (`GetXdbcTypeInfo`).

use arrow::datatypes::{DataType, IntervalUnit, TimeUnit};
use arrow_flight::error::FlightError;
use arrow_flight::sql::metadata::{
    SqlInfoData, SqlInfoDataBuilder, XdbcTypeInfo, XdbcTypeInfoData, XdbcTypeInfoDataBuilder,
};
use arrow_flight::sql::{
    Nullable, Searchable, SqlInfo, SqlNullOrdering, SqlOuterJoinsSupportLevel, SqlSupportedCaseSensitivity,
    SqlSupportedGroupBy, SqlSupportedSubqueries, SqlSupportedTransaction, SqlSupportedUnions, SupportedSqlGrammar,
    XdbcDataType, XdbcDatetimeSubcode,
};

/// Words of the SQL surface that SQL:1999 does not have.
const KEYWORDS: [&str; 21] = [
    "ANALYZE",
    "ASOF",
    "CHANGES",
    "COPY",
    "DRAIN",
    "EMIT",
    "EVERY",
    "EXPLAIN",
    "FLUSH",
    "JOBS",
    "LATE",
    "MATCH_CONDITION",
    "NODES",
    "PAUSE",
    "RESUME",
    "SHOW",
    "SINCE",
    "SINK",
    "STREAM",
    "STREAMS",
    "WATERMARK",
];

/// The facts about this server.
pub(crate) fn sql_info() -> Result<SqlInfoData, FlightError> {
    let mut info = SqlInfoDataBuilder::new();
    info.append(SqlInfo::FlightSqlServerName, "Millstream");
    info.append(SqlInfo::FlightSqlServerVersion, env!("CARGO_PKG_VERSION"));
    info.append(SqlInfo::FlightSqlServerArrowVersion, "1.5");
    info.append(SqlInfo::FlightSqlServerReadOnly, false);
    info.append(SqlInfo::FlightSqlServerSql, true);
    info.append(SqlInfo::FlightSqlServerSubstrait, false);
    info.append(SqlInfo::FlightSqlServerTransaction, SqlSupportedTransaction::None as i32);
    info.append(SqlInfo::FlightSqlServerCancel, true);
    info.append(SqlInfo::FlightSqlServerBulkIngestion, true);
    info.append(SqlInfo::FlightSqlServerIngestTransactionsSupported, false);
    // Zero: none.
    info.append(SqlInfo::FlightSqlServerStatementTimeout, 0_i32);
    info.append(SqlInfo::FlightSqlServerTransactionTimeout, 0_i32);
    append_syntax(&mut info);
    info.append(SqlInfo::SqlKeywords, &KEYWORDS[..]);
    info.build()
}

fn append_syntax(info: &mut SqlInfoDataBuilder) {
    let all = |bits: &[i32]| bits.iter().fold(0_i32, |mask, bit| mask | 1 << bit);
    info.append(SqlInfo::SqlDdlCatalog, false);
    info.append(SqlInfo::SqlDdlSchema, false);
    info.append(SqlInfo::SqlDdlTable, true);
    info.append(SqlInfo::SqlIdentifierCase, SqlSupportedCaseSensitivity::SqlCaseSensitivityLowercase as i32);
    info.append(SqlInfo::SqlIdentifierQuoteChar, "\"");
    // Quoted names keep their case.
    info.append(SqlInfo::SqlQuotedIdentifierCase, SqlSupportedCaseSensitivity::SqlCaseSensitivityUnknown as i32);
    // What is written to a connector, or read from some, cannot be selected from.
    info.append(SqlInfo::SqlAllTablesAreSelectable, false);
    info.append(SqlInfo::SqlNullOrdering, SqlNullOrdering::SqlNullsSortedHigh as i32);
    info.append(SqlInfo::SqlSearchStringEscape, "\\");
    info.append(SqlInfo::SqlExtraNameCharacters, "");
    info.append(SqlInfo::SqlSupportsColumnAliasing, true);
    info.append(SqlInfo::SqlNullPlusNullIsNull, true);
    info.append(SqlInfo::SqlSupportsTableCorrelationNames, true);
    info.append(SqlInfo::SqlSupportsDifferentTableCorrelationNames, false);
    info.append(SqlInfo::SqlSupportsExpressionsInOrderBy, true);
    info.append(SqlInfo::SqlSupportsOrderByUnrelated, true);
    let group_by = [SqlSupportedGroupBy::SqlGroupByUnrelated, SqlSupportedGroupBy::SqlGroupByBeyondSelect];
    info.append(SqlInfo::SqlSupportedGroupBy, all(&group_by.map(|g| g as i32)));
    info.append(SqlInfo::SqlSupportsLikeEscapeClause, true);
    info.append(SqlInfo::SqlSupportsNonNullableColumns, true);
    let grammar = [SupportedSqlGrammar::SqlMinimumGrammar, SupportedSqlGrammar::SqlCoreGrammar];
    info.append(SqlInfo::SqlSupportedGrammar, all(&grammar.map(|g| g as i32)));
    info.append(SqlInfo::SqlOuterJoinsSupportLevel, all(&[SqlOuterJoinsSupportLevel::SqlFullOuterJoins as i32]));
    info.append(SqlInfo::SqlSchemaTerm, "schema");
    info.append(SqlInfo::SqlCatalogTerm, "catalog");
    info.append(SqlInfo::SqlCatalogAtStart, true);
    info.append(SqlInfo::SqlSelectForUpdateSupported, false);
    info.append(SqlInfo::SqlStoredProceduresSupported, false);
    let subqueries = [
        SqlSupportedSubqueries::SqlSubqueriesInComparisons,
        SqlSupportedSubqueries::SqlSubqueriesInExists,
        SqlSupportedSubqueries::SqlSubqueriesInIns,
    ];
    info.append(SqlInfo::SqlSupportedSubqueries, all(&subqueries.map(|s| s as i32)));
    info.append(SqlInfo::SqlCorrelatedSubqueriesSupported, true);
    let unions = [SqlSupportedUnions::SqlUnion, SqlSupportedUnions::SqlUnionAll];
    info.append(SqlInfo::SqlSupportedUnions, all(&unions.map(|u| u as i32)));
}

/// The types that columns can have, by their SQL names.
pub(crate) fn xdbc_types() -> Result<XdbcTypeInfoData, FlightError> {
    use XdbcDataType as X;
    let mut types = XdbcTypeInfoDataBuilder::new();
    for (name, data_type, size) in [
        ("BOOLEAN", X::XdbcBit, 1),
        ("SMALLINT", X::XdbcSmallint, 5),
        ("INTEGER", X::XdbcInteger, 10),
        ("BIGINT", X::XdbcBigint, 19),
        ("REAL", X::XdbcReal, 24),
        ("DOUBLE PRECISION", X::XdbcDouble, 53),
    ] {
        let number = data_type != X::XdbcBit;
        types.append(XdbcTypeInfo {
            unsigned_attribute: number.then_some(false),
            num_prec_radix: number.then_some(if matches!(data_type, X::XdbcReal | X::XdbcDouble) { 2 } else { 10 }),
            ..plain_type(name, data_type, Some(size))
        });
    }
    types.append(XdbcTypeInfo {
        create_params: Some(vec!["precision".into(), "scale".into()]),
        unsigned_attribute: Some(false),
        minimum_scale: Some(0),
        maximum_scale: Some(76),
        num_prec_radix: Some(10),
        ..plain_type("DECIMAL", X::XdbcDecimal, Some(76))
    });
    for (name, data_type) in [("TEXT", X::XdbcVarchar), ("BYTEA", X::XdbcVarbinary)] {
        types.append(XdbcTypeInfo {
            literal_prefix: Some(if name == "TEXT" { "'" } else { "X'" }.into()),
            literal_suffix: Some("'".into()),
            case_sensitive: name == "TEXT",
            searchable: Searchable::Full,
            ..plain_type(name, data_type, None)
        });
    }
    for (name, data_type, size, subcode) in [
        ("DATE", X::XdbcDate, 10, None),
        ("TIME", X::XdbcTime, 15, None),
        ("TIMESTAMP", X::XdbcTimestamp, 26, Some(XdbcDatetimeSubcode::XdbcSubcodeTimestamp)),
        ("TIMESTAMPTZ", X::XdbcTimestamp, 32, Some(XdbcDatetimeSubcode::XdbcSubcodeTimestampWithTimezone)),
        ("INTERVAL", X::XdbcInterval, 0, None),
    ] {
        types.append(XdbcTypeInfo {
            literal_prefix: Some(format!("{name} '")),
            literal_suffix: Some("'".into()),
            datetime_subcode: subcode,
            ..plain_type(name, data_type, (size > 0).then_some(size))
        });
    }
    types.build()
}

fn plain_type(name: &str, data_type: XdbcDataType, column_size: Option<i32>) -> XdbcTypeInfo {
    XdbcTypeInfo {
        type_name: name.into(),
        data_type,
        sql_data_type: data_type,
        column_size,
        nullable: Nullable::NullabilityNullable,
        searchable: Searchable::Basic,
        auto_increment: Some(false),
        local_type_name: Some(name.into()),
        ..XdbcTypeInfo::default()
    }
}

/// The SQL name of a type; Arrow's where SQL has none.
pub(crate) fn type_name(data_type: &DataType) -> String {
    let name = match data_type {
        DataType::Boolean => "BOOLEAN",
        DataType::Int8 => "TINYINT",
        DataType::Int16 => "SMALLINT",
        DataType::Int32 => "INTEGER",
        DataType::Int64 => "BIGINT",
        DataType::UInt8 => "TINYINT UNSIGNED",
        DataType::UInt16 => "SMALLINT UNSIGNED",
        DataType::UInt32 => "INTEGER UNSIGNED",
        DataType::UInt64 => "BIGINT UNSIGNED",
        DataType::Float32 => "REAL",
        DataType::Float64 => "DOUBLE PRECISION",
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "TEXT",
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => "BYTEA",
        DataType::Date32 | DataType::Date64 => "DATE",
        DataType::Time32(_) | DataType::Time64(_) => "TIME",
        DataType::Interval(IntervalUnit::MonthDayNano | IntervalUnit::DayTime | IntervalUnit::YearMonth) => "INTERVAL",
        DataType::Decimal32(p, s) | DataType::Decimal64(p, s) => return format!("DECIMAL({p}, {s})"),
        DataType::Decimal128(p, s) | DataType::Decimal256(p, s) => return format!("DECIMAL({p}, {s})"),
        DataType::Timestamp(unit, zone) => return timestamp_name(*unit, zone.is_some()),
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            return format!("{}[]", type_name(item.data_type()));
        }
        other => return other.to_string(),
    };
    name.to_owned()
}

fn timestamp_name(unit: TimeUnit, zoned: bool) -> String {
    let name = if zoned { "TIMESTAMPTZ" } else { "TIMESTAMP" };
    match unit {
        TimeUnit::Microsecond => name.to_owned(),
        TimeUnit::Second => format!("{name}(0)"),
        TimeUnit::Millisecond => format!("{name}(3)"),
        TimeUnit::Nanosecond => format!("{name}(9)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Array, AsArray, UnionArray};

    #[test]
    fn transactions_are_said_to_be_none() {
        let batch = sql_info().unwrap().record_batch([SqlInfo::FlightSqlServerTransaction as u32]).unwrap();
        assert_eq!(batch.num_rows(), 1);
        let values = batch.column(1).as_any().downcast_ref::<UnionArray>().unwrap();
        let value = values.value(0);
        assert_eq!(value.as_primitive::<arrow::datatypes::Int32Type>().value(0), 0);
    }

    #[test]
    fn all_infos_and_types_build() {
        assert!(sql_info().unwrap().record_batch([]).unwrap().num_rows() > 40);
        let types = xdbc_types().unwrap();
        assert_eq!(types.record_batch(None).unwrap().num_rows(), 14);
        assert_eq!(types.record_batch(XdbcDataType::XdbcTimestamp as i32).unwrap().num_rows(), 2);
    }

    #[test]
    fn names_of_types() {
        assert_eq!(type_name(&DataType::Timestamp(TimeUnit::Microsecond, None)), "TIMESTAMP");
        assert_eq!(type_name(&DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()))), "TIMESTAMPTZ(3)");
        assert_eq!(type_name(&DataType::Decimal128(12, 2)), "DECIMAL(12, 2)");
        assert_eq!(type_name(&DataType::new_list(DataType::Utf8View, true)), "TEXT[]");
    }
}
