//! `GET /openapi.json`: what there is, for programs and for those who make clients.

use axum::Json;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use super::answer::Answer;
use super::parameters::Parameters;
use super::shape::NAMES;

/// The description.
pub(super) async fn document(request: Request) -> Result<Response, Answer> {
    Parameters::read(request.uri().query(), &[])?;
    Ok(Json(description()).into_response())
}

fn description() -> Value {
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Millstream",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Rows into streams, rows out of streams, and statements.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "paths": {
            "/streams/{name}": { "parameters": [name()], "get": read(), "post": post() },
            "/streams/{name}/changes": { "parameters": [name()], "get": changes() },
            "/sql": { "post": sql() },
            "/healthz": { "get": about("Whether the process answers", "alive", json!({}), &[]) },
            "/readyz": { "get": about("Whether it serves", "ready", ready(), &[503]) },
            "/metrics": { "get": metrics() },
            "/openapi.json": { "get": itself() },
        },
        "components": { "schemas": { "Error": error() }, "securitySchemes": { "login": { "type": "http", "scheme": "basic" } } },
        "security": [{}, { "login": [] }],
    })
}

fn name() -> Value {
    json!({
        "name": "name", "in": "path", "required": true, "description": "The stream, or a view where it is read.",
        "schema": { "type": "string", "minLength": 1 },
    })
}

fn format() -> Value {
    json!({
        "name": "format", "in": "query", "description": "The format of the rows; otherwise what Accept likes best.",
        "schema": { "type": "string", "enum": NAMES },
    })
}

fn read() -> Value {
    json!({
        "summary": "The committed rows of a stream or view",
        "operationId": "readStream",
        "parameters": [
            {
                "name": "where", "in": "query", "description": "A condition of SQL, such as price > 100.",
                "schema": { "type": "string", "minLength": 1 },
            },
            {
                "name": "limit", "in": "query", "description": "Rows at most.",
                "schema": { "type": "integer", "minimum": 0, "maximum": i64::MAX },
            },
            format(),
        ],
        "responses": responses(rows("The rows."), &[400, 401, 403, 404, 406, 422, 500, 503]),
    })
}

fn changes() -> Value {
    let events = json!({
        "description": "An event for each row, until the client goes. The last of an epoch has a position as its id.",
        "content": { "text/event-stream": { "schema": { "type": "string" } } },
    });
    json!({
        "summary": "The changes of a stream as server-sent events",
        "operationId": "followStream",
        "parameters": [
            {
                "name": "where", "in": "query", "description": "A condition of SQL, such as price > 100.",
                "schema": { "type": "string", "minLength": 1 },
            },
            {
                "name": "since", "in": "query", "description": "A position: what follows it is sent. Without, all that there is.",
                "schema": { "type": "string", "pattern": "^(.+:)?[0-9]+$" },
            },
            {
                "name": "snapshot", "in": "query", "description": "Begins with the present content instead of the history.",
                "schema": { "type": "string", "enum": ["true", "false"], "default": "false" },
            },
            {
                "name": "Last-Event-ID", "in": "header", "description": "As since, which it wins over.",
                "schema": { "type": "string", "pattern": "^(.+:)?[0-9]+$" },
            },
        ],
        "responses": responses(events, &[400, 401, 403, 404, 422, 500, 503]),
    })
}

fn post() -> Value {
    let taken = json!({
        "type": "object",
        "required": ["rows", "dead_letters", "repeated"],
        "properties": {
            "rows": { "type": "integer", "minimum": 0, "description": "Rows that are durable." },
            "dead_letters": { "type": "integer", "minimum": 0, "description": "Rows that were put aside." },
            "repeated": { "type": "boolean", "description": "They had been taken before." },
        },
    });
    let object = json!({ "type": "object" });
    json!({
        "summary": "Rows into a stored stream, all or none",
        "description": "Answers when the rows are durable. The body may be packed with gzip.",
        "operationId": "postRows",
        "parameters": [
            {
                "name": "on_error", "in": "query", "description": "What becomes of rows that do not fit.",
                "schema": { "type": "string", "enum": ["refuse", "dead_letter"], "default": "refuse" },
            },
            {
                "name": "Idempotency-Key", "in": "header",
                "description": "Rows that are sent again under the same key, within an hour, are not taken again.",
                "schema": { "type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$" },
            },
        ],
        "requestBody": {
            "required": true,
            "content": {
                "application/json": {
                    "schema": { "oneOf": [object, { "type": "array", "items": { "type": "object" } }] },
                },
                "application/x-ndjson": { "schema": { "type": "string" } },
                "text/csv": { "schema": { "type": "string" } },
                "application/vnd.apache.arrow.stream": { "schema": { "type": "string", "format": "binary" } },
            },
        },
        "responses": responses(
            json!({ "description": "The rows are durable.", "content": { "application/json": { "schema": taken } } }),
            &[400, 401, 403, 404, 408, 413, 415, 422, 500, 503],
        ),
    })
}

fn sql() -> Value {
    let mut given = rows("The rows of a query, or what was done.");
    let done = json!({
        "type": "object",
        "required": ["tag"],
        "properties": {
            "tag": { "type": "string", "description": "As CREATE STREAM." },
            "rows": { "type": ["integer", "null"] },
            "notice": { "type": ["string", "null"] },
            "left_out": { "type": ["string", "null"] },
        },
    });
    let array = given["content"]["application/json"]["schema"].take();
    given["content"]["application/json"]["schema"] = json!({ "oneOf": [array, done] });
    json!({
        "summary": "A statement",
        "operationId": "executeStatement",
        "parameters": [format()],
        "requestBody": {
            "required": true,
            "content": {
                "application/json": { "schema": {
                    "type": "object",
                    "required": ["sql"],
                    "properties": { "sql": { "type": "string", "minLength": 1 } },
                    "additionalProperties": false,
                } },
                "text/plain": { "schema": { "type": "string", "minLength": 1 } },
            },
        },
        "responses": responses(given, &[400, 401, 403, 404, 406, 408, 409, 413, 415, 422, 500, 503]),
    })
}

fn about(summary: &str, status: &str, more: Value, errors: &[u16]) -> Value {
    let mut properties = Map::from_iter([("status".to_owned(), json!({ "const": status }))]);
    if let Value::Object(more) = more {
        properties.extend(more);
    }
    let schema = json!({ "type": "object", "required": ["status"], "properties": properties });
    let answer = json!({ "description": "It does.", "content": { "application/json": { "schema": schema } } });
    json!({ "summary": summary, "responses": responses(answer, &[&[400], errors].concat()) })
}

fn ready() -> Value {
    json!({
        "running": { "type": "integer", "minimum": 0, "description": "Jobs that run." },
        "failed": { "type": "integer", "minimum": 0, "description": "Jobs that have failed." },
    })
}

fn metrics() -> Value {
    let page =
        json!({ "description": "The figures.", "content": { "text/plain": { "schema": { "type": "string" } } } });
    json!({ "summary": "Figures in the text format of Prometheus", "responses": responses(page, &[400, 401, 500]) })
}

fn itself() -> Value {
    let schema = json!({ "type": "object", "required": ["openapi", "paths"] });
    let answer = json!({ "description": "This.", "content": { "application/json": { "schema": schema } } });
    json!({ "summary": "This description", "responses": responses(answer, &[400]) })
}

/// Rows in each format.
fn rows(description: &str) -> Value {
    let text = json!({ "schema": { "type": "string" } });
    let incomplete = "Only where rows were left out: what, as JSON. Behind a large result it is a trailer.";
    json!({
        "description": description,
        "headers": { "Millstream-Incomplete": { "description": incomplete, "schema": { "type": "string" } } },
        "content": {
            "application/json": { "schema": { "type": "array", "items": { "type": "object" } } },
            "application/x-ndjson": text,
            "text/csv": text,
            "application/vnd.apache.arrow.stream": { "schema": { "type": "string", "format": "binary" } },
        },
    })
}

/// What is answered: `good` with status 200, and errors.
fn responses(good: Value, errors: &[u16]) -> Value {
    let mut all = Map::from_iter([("200".to_owned(), good)]);
    for status in errors {
        let schema = json!({ "$ref": "#/components/schemas/Error" });
        let error = json!({ "description": why(*status), "content": { "application/json": { "schema": schema } } });
        all.insert(status.to_string(), error);
    }
    Value::Object(all)
}

fn why(status: u16) -> &'static str {
    match status {
        400 => "The request is wrong.",
        401 => "Who asks must say who it is.",
        403 => "Who asks may not.",
        404 => "There is no such stream, column or function.",
        406 => "None of the formats that are accepted can be had.",
        408 => "The body does not come, or too slowly.",
        409 => "It exists already.",
        413 => "The body is too large.",
        415 => "The body is in a format that is not taken.",
        422 => "It is understood and cannot be done: rows do not fit, or the key was used for other rows.",
        503 => "Not now: the stream is paused or has failed, memory is short, or the server ends.",
        _ => "A defect.",
    }
}

fn error() -> Value {
    json!({
        "type": "object",
        "required": ["kind", "message"],
        "properties": {
            "kind": { "type": "string" },
            "message": { "type": "string" },
            "hint": { "type": "string", "description": "What to do about it." },
            "line": { "type": "integer", "description": "Where in the statement." },
            "column": { "type": "integer" },
            "rows": {
                "type": "array",
                "description": "The first rows that do not fit.",
                "items": {
                    "type": "object",
                    "properties": { "line": { "type": ["integer", "null"] }, "reason": { "type": "string" } },
                },
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_referred_to_is_there() {
        let all = description();
        let text = all.to_string();
        for part in text.split("\"$ref\":\"#").skip(1) {
            let pointer = part.split('"').next().unwrap();
            assert!(all.pointer(pointer).is_some(), "{pointer}");
        }
        assert_eq!(all["paths"].as_object().unwrap().len(), 7);
    }
}
