use sampan_oci::{Digest, Tag};
use sampan_testkit::{FakeRegistry, Fault, Kind};
use sampan_upstream::UpstreamError;

use crate::{repository, upstream};

#[tokio::test]
async fn tags_come_in_pages_until_there_are_no_more() {
    let fake = FakeRegistry::start().await;
    fake.list_tags("a/b", &["1.0", "1.1", "2.0", "latest", "../etc", "\u{1b}[31mred"]);
    let (upstream, name) = (upstream(&fake), repository("a/b"));
    let (mut all, mut last): (Vec<Tag>, Option<Tag>) = (Vec::new(), None);
    loop {
        let page = upstream.tags(&name, Some(3), last.as_ref().map(Tag::as_str)).await.unwrap();
        last = page.tags.last().cloned();
        all.extend(page.tags);
        if !page.more {
            break;
        }
    }
    assert_eq!(
        all.iter().map(Tag::as_str).collect::<Vec<_>>(),
        ["1.0", "1.1", "2.0", "latest"],
        "hostile ones dropped"
    );
    let whole = upstream.tags(&name, None, None).await.unwrap();
    assert_eq!((whole.tags, whole.more), (all, false));
}

#[tokio::test]
async fn a_page_is_asked_for_with_clean_parameters() {
    let fake = FakeRegistry::start().await;
    fake.list_tags("a/b", &["x"]);
    upstream(&fake).tags(&repository("a/b"), Some(1_000_000), Some("a&n=5#x")).await.unwrap();
    assert_eq!(fake.log()[0].query, "n=1000&last=a%26n%3D5%23x");
}

#[tokio::test]
async fn tag_lists_are_bounded_and_must_be_lists() {
    let fake = FakeRegistry::start().await;
    let (upstream, name) = (upstream(&fake), repository("a/b"));
    assert!(matches!(upstream.tags(&name, None, None).await, Err(UpstreamError::NotFound)));
    for fault in [Fault::EndlessBody, Fault::Html] {
        fake.list_tags("a/b", &["x"]);
        fake.heals();
        fake.fails_with(fault.clone());
        let error = upstream.tags(&name, None, None).await.unwrap_err();
        assert!(matches!(error, UpstreamError::Protocol(_)), "{fault:?}: {error:?}");
    }
    assert!(fake.body_bytes(Kind::Tags) < 12 * 1024 * 1024);
}

#[tokio::test]
async fn referrers_are_listed_filtered_or_unknown() {
    let fake = FakeRegistry::start().await;
    let image = fake.publish("library/alpine:3.20");
    let (upstream, name) = (upstream(&fake), image.repository.clone());
    let signature = fake.publish_referrer("library/alpine", &image.digest, "application/signature");
    fake.publish_referrer("library/alpine", &image.digest, "application/sbom");

    let all = upstream.referrers(&name, &image.digest, None).await.unwrap().unwrap();
    let manifest = sampan_oci::Manifest::parse(&all.body, None, None).unwrap();
    assert_eq!((manifest.descriptors().count(), all.filtered, all.more), (2, false, false));

    let some =
        upstream.referrers(&name, &image.digest, Some("application/signature")).await.unwrap().unwrap();
    let manifest = sampan_oci::Manifest::parse(&some.body, None, None).unwrap();
    assert_eq!(manifest.descriptors().map(|d| d.digest).collect::<Vec<_>>(), [signature]);
    assert!(some.filtered);

    let none = upstream.referrers(&name, &Digest::of(b"nothing"), None).await.unwrap().unwrap();
    assert_eq!(sampan_oci::Manifest::parse(&none.body, None, None).unwrap().descriptors().count(), 0);

    for (status, unknown) in [(404, true), (405, true), (501, true), (500, false), (403, false)] {
        fake.heals();
        fake.fails_with(Fault::Status(status));
        let answer = upstream.referrers(&name, &image.digest, None).await;
        assert_eq!(matches!(answer, Ok(None)), unknown, "{status}: {answer:?}");
    }
    fake.heals();
    fake.fails_with(Fault::Html);
    let error = upstream.referrers(&name, &image.digest, None).await.unwrap_err();
    assert!(matches!(error, UpstreamError::InvalidManifest(_)), "{error:?}");
}
