//! Lists an upstream gives: tags and referrers. Only what can be read strictly is kept.

use bytes::Bytes;
use reqwest::Url;
use sampan_oci::{Manifest, Tag};
use serde::Deserialize;
use serde_json::Value;

use crate::UpstreamError;

/// A page of tags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagsPage {
    /// The tags, in the upstream's order. Texts that are no tags are left out.
    pub tags: Vec<Tag>,
    /// Whether the upstream has more: ask again with the last of these.
    pub more: bool,
}

/// A list of referrers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Referrers {
    /// An index: exactly as received where it came in one page, or made of the pages' entries.
    pub body: Bytes,
    /// Whether the upstream itself filtered by artifact type (`OCI-Filters-Applied`).
    pub filtered: bool,
    /// Whether the upstream has more than what is fetched: 16 pages, 4 MiB.
    pub more: bool,
}

/// The longest query of a next page.
const QUERY_BYTES_MAX: usize = 2048;

#[derive(Deserialize)]
struct TagList {
    /// Absent or null where a repository has no tags (distribution before 2.8 writes null).
    tags: Option<Vec<String>>,
}

pub(crate) fn tags(body: &[u8], has_next: bool) -> Result<TagsPage, UpstreamError> {
    let list: TagList =
        serde_json::from_slice(body).map_err(|_| UpstreamError::Protocol("its tag list is not one"))?;
    let tags: Vec<Tag> = list.tags.unwrap_or_default().iter().filter_map(|text| text.parse().ok()).collect();
    // Without a last tag nobody could ask for the next page.
    let more = has_next && !tags.is_empty();
    Ok(TagsPage { tags, more })
}

/// The pages of a list of referrers as they come in.
#[derive(Debug, Default)]
pub(crate) struct Pages {
    pages: Vec<Bytes>,
    unfiltered: usize,
}

impl Pages {
    /// Takes a page, which must be an index. `filters`: what the upstream says it filtered by.
    pub(crate) fn push(&mut self, body: Bytes, filters: Option<&str>) -> Result<(), UpstreamError> {
        if !Manifest::parse(&body, None, None)?.is_index() {
            return Err(UpstreamError::Protocol("its referrers are no index"));
        }
        let filtered =
            filters.is_some_and(|names| names.split(',').any(|name| name.trim() == "artifactType"));
        self.unfiltered += usize::from(!filtered);
        self.pages.push(body);
        Ok(())
    }

    pub(crate) fn len(&self) -> usize {
        self.pages.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pages.is_empty()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.pages.iter().map(Bytes::len).sum()
    }

    /// All pages as one list.
    pub(crate) fn joined(self, more: bool) -> Result<Referrers, UpstreamError> {
        let filtered = self.unfiltered == 0;
        let mut pages = self.pages.into_iter();
        let first = pages.next().unwrap_or_default();
        if pages.len() == 0 {
            return Ok(Referrers { body: first, filtered, more });
        }
        let unread = |_| UpstreamError::Protocol("its referrers cannot be read");
        let mut list: Value = serde_json::from_slice(&first).map_err(unread)?;
        for page in pages {
            let mut page: Value = serde_json::from_slice(&page).map_err(unread)?;
            if let (Some(all), Some(more)) =
                (list["manifests"].as_array_mut(), page["manifests"].as_array_mut())
            {
                all.append(more);
            }
        }
        let body = Bytes::from(list.to_string());
        // Each page was within the bounds; what they make together has to be too.
        Manifest::parse(&body, None, None)?;
        Ok(Referrers { body, filtered, more })
    }
}

/// What a page says about the next one.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// There is none.
    None,
    /// It is at the same address with this query.
    Query(String),
    /// It is where nobody follows (SECURITY.md R17), or the address cannot be read.
    Elsewhere,
}

/// Where the next page is, from the `Link` headers of the page at `this`.
pub(crate) fn next_page<'a>(links: impl Iterator<Item = &'a str>, this: &Url) -> Next {
    let mut targets =
        links.flat_map(|value| value.split(',')).filter(|link| has_next(std::iter::once(*link))).peekable();
    if targets.peek().is_none() {
        return Next::None;
    }
    let target = targets.next().and_then(|link| link.trim().strip_prefix('<')?.split_once('>'));
    let Some(next) = target.and_then(|(address, _)| this.join(address).ok()) else { return Next::Elsewhere };
    let same = next.origin() == this.origin() && next.path() == this.path() && next.username().is_empty();
    match next.query() {
        Some(query) if same && query.len() <= QUERY_BYTES_MAX && next.query() != this.query() => {
            Next::Query(query.into())
        }
        Some(_) | None => Next::Elsewhere,
    }
}

/// Whether a `Link` header speaks of a next page. Where it leads is the upstream's to say and ours to ignore (R17).
pub(crate) fn has_next<'a>(links: impl Iterator<Item = &'a str>) -> bool {
    links.flat_map(|value| value.split(',')).flat_map(|link| link.split(';').skip(1)).any(|parameter| {
        let Some((name, value)) = parameter.split_once('=') else { return false };
        name.trim().eq_ignore_ascii_case("rel") && value.trim().trim_matches('"').eq_ignore_ascii_case("next")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_are_no_tags_are_left_out() {
        let body = r#"{"name":"a","tags":["1.0","../x","\u001b[31m","","latest","a b","-x"]}"#;
        let page = tags(body.as_bytes(), true).unwrap();
        assert_eq!(page.tags.iter().map(Tag::as_str).collect::<Vec<_>>(), ["1.0", "latest"]);
        assert!(page.more);
        assert!(!tags(br#"{"tags":["../"]}"#, true).unwrap().more, "a page of nonsense has no continuation");
        assert_eq!(tags(br#"{"name":"a","tags":null}"#, false).unwrap().tags, []);
        assert!(tags(b"<html>", false).is_err());
    }

    #[test]
    fn links_are_read_for_their_relation_alone() {
        for yes in [
            r#"</v2/a/tags/list?n=2&last=b>; rel="next""#,
            "<x>; rel=next",
            r#"<a>; rel="prev", <b>; REL="Next""#,
        ] {
            assert!(has_next([yes].into_iter()), "{yes}");
        }
        for no in ["", r#"<x>; rel="prev""#, r#"<x?rel=next>; title="x""#, "rel=next"] {
            assert!(!has_next([no].into_iter()), "{no}");
        }
    }

    #[test]
    fn referrers_are_an_index_or_nothing() {
        let index = Bytes::from_static(br#"{"schemaVersion":2,"manifests":[]}"#);
        let mut pages = Pages::default();
        pages.push(index.clone(), Some("artifactType")).unwrap();
        assert!(pages.push(Bytes::from_static(b"<html>"), None).is_err());
        let read = pages.joined(false).unwrap();
        assert_eq!((read.body, read.filtered), (index, true));
    }

    #[test]
    fn the_next_page_of_referrers_is_at_the_same_address_or_nowhere() {
        let this: Url = "https://r.test/v2/a/referrers/sha256:00?n=1".parse().unwrap();
        let next = |link: &str| next_page([link].into_iter(), &this);
        assert_eq!(next(r#"<https://r.test/x>; rel="prev""#), Next::None);
        for good in [
            r#"</v2/a/referrers/sha256:00?page=2>; rel="next""#,
            r"<https://r.test/v2/a/referrers/sha256:00?page=2>; rel=next",
            r#"<?page=2>; rel="next""#,
        ] {
            assert_eq!(next(good), Next::Query("page=2".into()), "{good}");
        }
        for bad in [
            r#"<https://evil.test/v2/a/referrers/sha256:00?page=2>; rel="next""#,
            r#"<http://r.test/v2/a/referrers/sha256:00?page=2>; rel="next""#,
            r#"<https://r.test:444/v2/a/referrers/sha256:00?page=2>; rel="next""#,
            r#"<https://me@r.test/v2/a/referrers/sha256:00?page=2>; rel="next""#,
            r#"</v2/b/referrers/sha256:00?page=2>; rel="next""#,
            r#"<../../../token?page=2>; rel="next""#,
            r#"<?n=1>; rel="next""#,
            r#"</v2/a/referrers/sha256:00>; rel="next""#,
            r#"page=2; rel="next""#,
        ] {
            assert_eq!(next(bad), Next::Elsewhere, "{bad}");
        }
    }
}
