//! Lists an upstream gives: tags and referrers. Only what can be read strictly is kept.

use bytes::Bytes;
use sampan_oci::{Manifest, Tag};
use serde::Deserialize;

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
    /// The index exactly as received; it was read as one.
    pub body: Bytes,
    /// Whether the upstream itself filtered by artifact type (`OCI-Filters-Applied`).
    pub filtered: bool,
    /// Whether the upstream has more pages, which are not fetched.
    pub more: bool,
}

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

pub(crate) fn referrers(body: Bytes, filters: Option<&str>, more: bool) -> Result<Referrers, UpstreamError> {
    let index = Manifest::parse(&body, None, None)?;
    if !index.is_index() {
        return Err(UpstreamError::Protocol("its referrers are no index"));
    }
    let filtered = filters.is_some_and(|names| names.split(',').any(|name| name.trim() == "artifactType"));
    Ok(Referrers { body, filtered, more })
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
        let read = referrers(index.clone(), Some("artifactType"), false).unwrap();
        assert_eq!((read.body, read.filtered), (index, true));
        assert!(referrers(Bytes::from_static(b"<html>"), None, false).is_err());
    }
}
