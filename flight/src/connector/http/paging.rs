//! How a server gives its pages, and where the next request goes on.

use reqwest::header::{HeaderMap, LINK};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use url::Url;

use millstream_engine::format::json::find;

/// How a server gives its pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Paging {
    /// It has one.
    None,
    /// The header `Link` has the URL of the next.
    Link,
    /// A JSON pointer leads to the URL of the next.
    Next(String),
    /// A JSON pointer leads to what the parameter is to be in the next request. It goes on from there at the next poll.
    Cursor { pointer: String, param: String },
    /// Numbers, until a page has no rows.
    Page { param: String, first: u64 },
}

/// Where the next request goes on. Committed with the rows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) next: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) cursor: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) page: Option<u64>,
    /// What the server calls the version of the first page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) etag: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) modified: Option<String>,
}

impl Place {
    /// Whether a round of pages begins here.
    pub(super) fn is_first(&self) -> bool {
        self.next.is_none() && self.page.is_none()
    }

    /// The URL to ask.
    pub(super) fn url(&self, url: &Url, paging: &Paging) -> Url {
        let mut asked = self.next.as_deref().and_then(|next| Url::parse(next).ok()).unwrap_or_else(|| url.clone());
        match (paging, &self.cursor, self.page) {
            (Paging::Cursor { param, .. }, Some(cursor), _) => {
                asked.query_pairs_mut().append_pair(param, cursor);
            }
            (Paging::Page { param, first }, _, page) => {
                asked.query_pairs_mut().append_pair(param, &page.unwrap_or(*first).to_string());
            }
            _ => {}
        }
        asked
    }

    /// Goes on behind an answer to `asked` with `rows` rows. Says whether there is another page to ask for at once, or why
    /// the next one is not asked for.
    pub(super) fn advance(
        &mut self,
        paging: &Paging,
        asked: &Url,
        headers: &HeaderMap,
        body: &[u8],
        rows: usize,
    ) -> Result<bool, String> {
        match paging {
            Paging::None => Ok(false),
            Paging::Link => self.follow(asked, link(headers)),
            Paging::Next(pointer) => self.follow(asked, text(body, pointer)),
            Paging::Cursor { pointer, .. } => {
                let Some(cursor) = text(body, pointer) else { return Ok(false) };
                let moved = self.cursor.as_ref() != Some(&cursor);
                self.cursor = Some(cursor);
                Ok(moved && rows > 0)
            }
            Paging::Page { first, .. } => {
                self.page = (rows > 0).then(|| self.page.unwrap_or(*first) + 1);
                Ok(self.page.is_some())
            }
        }
    }

    /// Goes on at `next`, or at the beginning. A server is not followed to another.
    fn follow(&mut self, asked: &Url, next: Option<String>) -> Result<bool, String> {
        self.next = None;
        let Some(next) = next else { return Ok(false) };
        let url = asked.join(&next).map_err(|_| "the next page is no URL".to_owned())?;
        if url.origin() != asked.origin() {
            return Err("the next page is on another server".to_owned());
        }
        if url == *asked {
            return Err("the next page is the same again".to_owned());
        }
        self.next = Some(url.into());
        Ok(true)
    }
}

/// The text or number that `pointer` leads to.
fn text(body: &[u8], pointer: &str) -> Option<String> {
    let found = find(body, pointer).ok()??;
    match serde_json::from_slice(found).ok()? {
        Value::String(text) => Some(text).filter(|text| !text.is_empty()),
        Value::Number(_) => Some(String::from_utf8_lossy(found).into_owned()),
        _ => None,
    }
}

/// The URL of the next page in `Link: <url>; rel="next"`.
fn link(headers: &HeaderMap) -> Option<String> {
    let all = headers.get_all(LINK).iter().filter_map(|value| value.to_str().ok());
    let next = all.flat_map(|value| value.split(',')).find_map(|one| {
        let (url, rest) = one.trim().strip_prefix('<')?.split_once('>')?;
        let is_next = rest.split(';').any(|part| {
            let relation = part.trim().strip_prefix("rel=").unwrap_or_default();
            relation.trim_matches('"').split(' ').any(|word| word.eq_ignore_ascii_case("next"))
        });
        is_next.then_some(url)
    });
    next.map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn links_are_followed_on_the_same_server() {
        let (base, none) = (url("http://h/a?x=1"), HeaderMap::new());
        let mut place = Place::default();
        let paging = Paging::Next("/next".into());
        let body = |next: &str| format!("{{\"next\": {next}}}").into_bytes();
        assert_eq!(place.advance(&paging, &base, &none, &body("\"/b?p=2\""), 1), Ok(true));
        assert_eq!(place.url(&base, &paging), url("http://h/b?p=2"));
        assert!(place.advance(&paging, &base, &none, &body("\"http://other/b\""), 1).is_err());
        assert!(place.advance(&paging, &base, &none, &body("\"http://h/a?x=1\""), 1).is_err());
        assert_eq!((place.advance(&paging, &base, &none, &body("null"), 1), place.is_first()), (Ok(false), true));
        let mut headers = HeaderMap::new();
        headers.insert(LINK, "<http://h/p>; rel=prev, <?page=3>; rel=\"next\"".parse().unwrap());
        assert_eq!(place.advance(&Paging::Link, &base, &headers, b"[]", 1), Ok(true));
        assert_eq!(place.url(&base, &Paging::Link), url("http://h/a?page=3"));
    }

    #[test]
    fn cursors_stay_and_pages_begin_anew() {
        let (base, none) = (url("http://h/a"), HeaderMap::new());
        let cursor = Paging::Cursor { pointer: "/c".into(), param: "after".into() };
        let mut place = Place::default();
        assert_eq!(place.url(&base, &cursor), base);
        assert_eq!(place.advance(&cursor, &base, &none, b"{\"c\": \"x y\"}", 2), Ok(true));
        assert_eq!(place.url(&base, &cursor), url("http://h/a?after=x+y"));
        assert_eq!(place.advance(&cursor, &base, &none, b"{\"c\": \"x y\"}", 0), Ok(false));
        assert_eq!(place.advance(&cursor, &base, &none, b"{\"c\": 12345678901234567890}", 0), Ok(false));
        assert_eq!(place.cursor.as_deref(), Some("12345678901234567890"));
        assert_eq!(place.advance(&cursor, &base, &none, b"{\"c\": null}", 1), Ok(false));
        assert_eq!(place.cursor.as_deref(), Some("12345678901234567890"), "it goes on from there");
        let page = Paging::Page { param: "p".into(), first: 0 };
        let mut place = Place::default();
        assert_eq!(place.url(&base, &page), url("http://h/a?p=0"));
        assert_eq!(place.advance(&page, &base, &none, b"[1]", 1), Ok(true));
        assert_eq!(place.url(&base, &page), url("http://h/a?p=1"));
        assert_eq!((place.advance(&page, &base, &none, b"[]", 0), place.is_first()), (Ok(false), true));
    }
}
