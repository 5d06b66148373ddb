//! COPY: the rows of a query to files.

use std::collections::BTreeMap;
use std::path::Path;

use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::parser::{CopyToStatement, Statement as DfStatement};
use datafusion::sql::sqlparser::ast::Value;
use futures::TryStreamExt;
use millstream_engine::connector::file::export::{Export, ExportRequest};
use millstream_engine::format::Format;
use millstream_engine::options::Options;
use millstream_engine::store::{ObjectsUrl, is_url};

use super::Session;
use super::bucket::BucketTarget;
use super::execute::snapshot;
use super::left_out::LeftOutRows;
use super::outcome::Outcome;
use crate::error::{Error, Result};
use crate::plan::{session_state, statement_plan};
use crate::statement::Copy;

impl Session {
    /// Nothing of the files is there before all rows are.
    pub(super) async fn copy(&self, copy: &Copy) -> Result<Outcome> {
        let CopyToStatement { target, stored_as, partitioned_by, options, .. } = &copy.statement;
        let path = target.strip_prefix("file://").unwrap_or(target);
        self.check_target(path)?;
        let (state, left_out) = (session_state(), LeftOutRows::default());
        // Only the rows are DataFusion's: the rest it need not know.
        let rows = CopyToStatement {
            target: "rows.parquet".to_owned(),
            stored_as: None,
            partitioned_by: vec![],
            options: vec![],
            ..copy.statement.clone()
        };
        let resolver = self.millstream.batch_resolver(&left_out, &self.reading());
        let plan = statement_plan(&state, resolver, DfStatement::CopyTo(rows))?;
        let LogicalPlan::Copy(plan) = plan else { return Err(Error::internal("a COPY that is none")) };
        let Outcome::Rows(mut rows) =
            snapshot(&self.millstream, &state, plan.input.as_ref().clone(), &left_out).await?
        else {
            return Err(Error::internal("a query without rows"));
        };
        let mut request = ExportRequest {
            target: path.to_owned(),
            format: stored_as.as_deref().map(format_of).transpose()?,
            schema: rows.schema.clone(),
            partition_by: partitioned_by.clone(),
            existing: copy.existing,
            options: Options::new(format!("COPY TO '{target}'"), options_of(options)?),
        };
        let bucket = BucketTarget::of(&mut request).await?;
        let mut export = blocking(move || Export::begin(request)).await?;
        let mut account = self.millstream.budget().account(format!("COPY TO '{target}'"));
        while let Some(batch) = rows.rows.try_next().await? {
            export = blocking(move || {
                export.write(&batch)?;
                Ok(export)
            })
            .await?;
            let bytes = export.bytes();
            if account.should_shrink(bytes) {
                let short = account.is_short_with(bytes);
                export = blocking(move || {
                    export.shrink(short)?;
                    Ok(export)
                })
                .await?;
            }
            account.resize_large(export.bytes()).map_err(|e| {
                e.with_hint(
                    "Raise it with SET memory_limit = '8GB', or write fewer files: PARTITIONED BY other columns.",
                )
            })?;
        }
        let count = export.rows();
        blocking(move || export.finish()).await?;
        if let Some(bucket) = bucket {
            bucket.finish().await?;
        }
        Ok(Outcome::rows("COPY", count, &left_out))
    }

    /// Checks that `path` may be written to from where the statement comes.
    fn check_target(&self, path: &str) -> Result<()> {
        match self.millstream.reach_of(&self.who) {
            Some(reach) if is_url(path) => Ok(reach.check_objects(&ObjectsUrl::parse(path)?)?),
            Some(reach) => Ok(reach.check_file(Path::new(path))?),
            None => Ok(()),
        }
    }
}

async fn blocking<T: Send + 'static>(run: impl FnOnce() -> millstream_engine::Result<T> + Send + 'static) -> Result<T> {
    let ended = |e| Error::internal(format!("a writing thread ended early: {e}"));
    Ok(tokio::task::spawn_blocking(run).await.map_err(ended)??)
}

fn format_of(stored_as: &str) -> Result<Format> {
    Ok(match stored_as.to_ascii_uppercase().as_str() {
        "PARQUET" => Format::Parquet,
        "CSV" => Format::Csv,
        "JSON" | "NDJSON" => Format::Json,
        "ARROW" => Format::Arrow,
        other => {
            return Err(Error::unsupported(format!("COPY … STORED AS {other} is not supported"))
                .with_hint("Write one of: PARQUET, CSV, JSON, ARROW."));
        }
    })
}

/// The options as connectors have them: `format.has_header` and `header` are one.
fn options_of(options: &[(String, Value)]) -> Result<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    for (name, value) in options {
        let name = name.to_ascii_lowercase();
        let name = name.strip_prefix("format.").unwrap_or(&name);
        let name = if name == "has_header" { "header" } else { name };
        let value = match value {
            Value::SingleQuotedString(text) | Value::DoubleQuotedString(text) => text.clone(),
            other => other.to_string(),
        };
        if all.insert(name.to_owned(), value).is_some() {
            return Err(Error::invalid(format!("COPY has option \"{name}\" twice")).with_hint("Write it once."));
        }
    }
    Ok(all)
}
