//! JSON pointers (RFC 6901): one value of a document, found without reading the others.

use super::line::Line;
use crate::format::spans::{Kind, Span};
use crate::format::values::Escapes;

/// The text of the value that `pointer` leads to in `document`, a string with its quotes; `None` where there is none.
///
/// Errors with why the document cannot be taken apart.
pub fn find<'a>(document: &'a [u8], pointer: &str) -> Result<Option<&'a [u8]>, String> {
    let line = Line { bytes: document, start: 0 };
    let begin = line.blank(0);
    let mut found = line.value(begin)?;
    for step in pointer.split('/').skip(1) {
        let step = step.replace("~1", "/").replace("~0", "~");
        if found.kind != Kind::Nested {
            return Ok(None);
        }
        let inner = Line { bytes: &document[..found.end as usize], start: found.start as usize };
        let next = match document.get(found.start as usize) {
            Some(b'{') => member(&inner, &step)?,
            _ => item(&inner, &step)?,
        };
        let Some(next) = next else { return Ok(None) };
        found = next;
    }
    let quotes = usize::from(matches!(found.kind, Kind::Text | Kind::Escaped));
    Ok(document.get(found.start as usize - quotes..found.end as usize + quotes))
}

fn member(object: &Line<'_>, name: &str) -> Result<Option<Span>, String> {
    let mut found = None;
    object.entries(|key, value| {
        let same = match key.kind {
            Kind::Escaped => {
                let mut plain = vec![];
                Escapes::Json.resolve(object.span(key), &mut plain).is_some() && plain == name.as_bytes()
            }
            _ => object.span(key) == name.as_bytes(),
        };
        if same {
            found = Some(value);
        }
        Ok(())
    })?;
    Ok(found)
}

fn item(array: &Line<'_>, place: &str) -> Result<Option<Span>, String> {
    let Ok(place) = place.parse::<usize>() else { return Ok(None) };
    let (mut at, mut found) = (0, None);
    array.items(|value| {
        if at == place {
            found = Some(value);
        }
        at += 1;
    })?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_by_their_pointers() {
        let document = br#" {"data": {"items": [1, {"a/b": "x\"y"}, [true]], "next": null}, "A": 2.50} "#;
        let of = |pointer| find(document, pointer).expect("reads").map(|v| String::from_utf8_lossy(v).into_owned());
        assert_eq!(of("/data/items/0").as_deref(), Some("1"));
        assert_eq!(of("/data/items/1/a~1b").as_deref(), Some(r#""x\"y""#));
        assert_eq!(of("/data/items/2").as_deref(), Some("[true]"));
        assert_eq!(of("/data/next").as_deref(), Some("null"));
        assert_eq!(of("/A").as_deref(), Some("2.50"));
        assert_eq!(of("").map(|whole| whole.len()), Some(document.len() - 2));
        for nowhere in ["/data/items/3", "/data/items/x", "/b", "/A/b", "/data/"] {
            assert_eq!(of(nowhere), None, "{nowhere}");
        }
        assert!(find(b"{\"a\": [1, 2}", "/a").is_err() && find(b"", "").is_err());
    }
}
