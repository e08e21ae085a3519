//! The rest of the pull side: attestations, referrers, and every kind of content that a registry may hold.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "tests are named as sentences; a failed unwrap fails the test"
)]

mod common;

use std::time::Duration;

use common::{TestMirror, body};
use sampan_oci::{Algorithm, Digest, Hasher, MediaType};
use sampan_testkit::{FakeRegistry, Fault, Image, ImageSpec, IndexSpec, Kind, random_bytes};
use serde_json::{Value, json};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const REPOSITORY: &str = "library/alpine";

fn manifest(reference: impl std::fmt::Display) -> String {
    format!("/v2/{REPOSITORY}/manifests/{reference}")
}

fn blob(digest: &Digest) -> String {
    format!("/v2/{REPOSITORY}/blobs/{digest}")
}

fn sha512(bytes: &[u8]) -> Digest {
    let mut hasher = Hasher::new(Algorithm::Sha512);
    hasher.update(bytes);
    hasher.finish()
}

async fn got(mirror: &TestMirror, path: &str) -> Vec<u8> {
    let answer = mirror.get(path).await;
    assert_eq!(answer.status(), 200, "{path}");
    body(answer).await.unwrap()
}

/// Waits until a blob is held.
async fn held(mirror: &TestMirror, digest: &Digest) {
    let there = async {
        while !mirror.file(digest).exists() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), there).await.expect("it is fetched in the background");
}

/// What dockerd before 29.1 asks for.
async fn pull(mirror: &TestMirror, image: &Image) {
    got(mirror, &manifest(&image.tag)).await;
    let first = &image.manifests[0];
    got(mirror, &manifest(first.digest)).await;
    for part in first.layers.iter().chain([&first.config]) {
        assert_eq!(got(mirror, &blob(&part.digest)).await, part.bytes);
    }
}

#[tokio::test]
async fn the_attestation_of_what_was_pulled_is_held_too_and_that_of_nothing_else() {
    let upstream = FakeRegistry::start().await;
    let spec = |seed| IndexSpec::new().image(ImageSpec::new(seed, &[50_000, 1000])).attestation();
    let image = upstream.publish_index("library/alpine:3.20", &spec(1));
    let other = upstream.publish_index("library/alpine:3.19", &spec(9));
    let mirror = TestMirror::in_front_of(&upstream).await;
    mirror.mirror.set_fetch_unasked(false);
    pull(&mirror, &image).await;
    mirror.mirror.set_fetch_unasked(true);
    // Its index alone is looked at, as for its digest.
    got(&mirror, &manifest(&other.tag)).await;
    let attestation = &image.manifests[1];
    assert_eq!(
        upstream.fetches_of(&attestation.digest),
        0,
        "a link paid for by the byte carries what is asked for"
    );

    pull(&mirror, &image).await;
    let parts = [&attestation.layers[0], &attestation.config];
    for part in parts {
        held(&mirror, &part.digest).await;
    }
    for digest in [&attestation.digest, &parts[0].digest, &parts[1].digest] {
        assert_eq!(upstream.fetches_of(digest), 1, "once");
    }
    assert_eq!(upstream.fetches_of(&other.manifests[1].digest), 0, "nobody pulled that");
    // What dockerd from 29.1 on asks for, in an aeroplane.
    upstream.fails_with(Fault::RefuseConnection);
    pull(&mirror, &image).await;
    assert_eq!(got(&mirror, &manifest(attestation.digest)).await, attestation.bytes);
    for part in parts {
        assert_eq!(got(&mirror, &blob(&part.digest)).await, part.bytes);
    }
    let referrers = got(&mirror, &format!("/v2/{REPOSITORY}/referrers/{}", attestation.digest)).await;
    assert_eq!(serde_json::from_slice::<Value>(&referrers).unwrap()["manifests"], json!([]));
}

/// The digests a list of referrers has, and whether it says that it was filtered.
async fn referrers(mirror: &TestMirror, subject: &Digest, kind: &str) -> (Vec<String>, bool) {
    let query = if kind.is_empty() { String::new() } else { format!("?artifactType={kind}") };
    let answer = mirror.get(&format!("/v2/{REPOSITORY}/referrers/{subject}{query}")).await;
    assert_eq!((answer.status().as_u16(), answer.headers()["content-type"].to_str().unwrap()), (200, INDEX));
    assert!(!answer.headers().contains_key("link"), "all of it in one page");
    let filtered =
        answer.headers().get("oci-filters-applied").is_some_and(|filters| filters == "artifactType");
    let list: Value = serde_json::from_slice(&body(answer).await.unwrap()).unwrap();
    let digests =
        list["manifests"].as_array().unwrap().iter().map(|entry| entry["digest"].as_str().unwrap().into());
    (digests.collect(), filtered)
}

#[tokio::test]
async fn referrers_are_whole_filtered_and_kept_however_the_upstream_gives_them() {
    let upstream = FakeRegistry::start().await;
    let image = upstream.publish("library/alpine:3.20");
    let mirror = TestMirror::in_front_of(&upstream).await;
    let (sbom, signature) = ("application/x.sbom", "application/x.signature+json");
    let all: Vec<String> = [sbom, signature, "application/x.other"]
        .map(|kind| upstream.publish_referrer(REPOSITORY, &image.digest, kind).to_string())
        .to_vec();
    upstream.fails_on(Kind::Referrers, Fault::ReferrersInPages(1));
    assert_eq!(referrers(&mirror, &image.digest, "").await, (all.clone(), false));
    assert_eq!(upstream.requests(Kind::Referrers), 3, "page after page");
    upstream.heals();
    upstream.forget();
    assert_eq!(referrers(&mirror, &image.digest, sbom).await, (vec![all[0].clone()], true));
    assert_eq!(
        referrers(&mirror, &image.digest, "application/x.signature%2Bjson").await,
        (vec![all[1].clone()], true)
    );
    assert_eq!(referrers(&mirror, &image.digest, "nothing").await, (vec![], true));
    assert!(upstream.log().iter().all(|request| request.query.is_empty()), "only a whole list can be kept");
    for fault in [Fault::RefuseConnection, Fault::Status(500), Fault::Html, Fault::Status(429)] {
        upstream.heals();
        upstream.fails_with(fault.clone());
        assert_eq!(referrers(&mirror, &image.digest, "").await, (all.clone(), false), "{fault:?}");
        assert_eq!(referrers(&mirror, &image.digest, sbom).await, (vec![all[0].clone()], true), "{fault:?}");
        let unknown = Digest::of(format!("{fault:?}").as_bytes());
        assert_eq!(referrers(&mirror, &unknown, "").await, (vec![], false), "{fault:?}");
        upstream.heals();
        mirror.finds_them_healed().await;
        let now = upstream.publish_referrer(REPOSITORY, &unknown, sbom).to_string();
        assert_eq!(
            referrers(&mirror, &unknown, "").await.0,
            [now],
            "an empty list for want of an answer is no truth"
        );
    }
}

#[tokio::test]
async fn an_upstream_without_the_referrers_api_is_asked_for_the_fallback_tag() {
    let upstream = FakeRegistry::start().await;
    let image = upstream.publish("library/alpine:3.20");
    let mirror = TestMirror::in_front_of(&upstream).await;
    let entry = |kind: &str| {
        let digest = Digest::of(kind.as_bytes()).to_string();
        (digest.clone(), json!({"mediaType": MANIFEST, "digest": digest, "size": 7, "artifactType": kind}))
    };
    let ((first, one), (second, two)) = (entry("x.sbom"), entry("x.signature"));
    let list = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [one, two]}).to_string();
    let long = sha512(b"a subject");
    for subject in [image.digest, long] {
        let tag = format!("{}-{}", subject.algorithm().as_str(), &subject.hex()[..64]);
        upstream.publish_manifest(REPOSITORY, &tag, list.clone(), INDEX);
        for status in [404, 405, 501] {
            upstream.heals();
            mirror.finds_them_healed().await;
            upstream.fails_on(Kind::Referrers, Fault::Status(status));
            assert_eq!(referrers(&mirror, &subject, "").await, (vec![first.clone(), second.clone()], false));
            assert_eq!(referrers(&mirror, &subject, "x.sbom").await, (vec![first.clone()], true));
        }
        assert_eq!(referrers(&mirror, &Digest::of(b"nobody"), "").await, (vec![], false), "a 200, and empty");
        upstream.fails_with(Fault::RefuseConnection);
        assert_eq!(
            referrers(&mirror, &subject, "x.signature").await,
            (vec![second.clone()], true),
            "from the tag held"
        );
        for tag in [format!("sha256-{}", "0".repeat(64)), format!("sha512-{}", "0".repeat(64))] {
            assert_eq!(mirror.get(&manifest(tag)).await.status(), 404, "a 503 here would fail a whole pull");
        }
    }
    assert_eq!(mirror.get(&format!("/v2/{REPOSITORY}/referrers/sha256:totallywrong")).await.status(), 400);
}

#[tokio::test]
async fn sha512_names_are_checked_and_kept_like_the_others() {
    let upstream = FakeRegistry::start().await;
    let mirror = TestMirror::in_front_of(&upstream).await;
    // One is verified before its first byte, one while it streams in pieces.
    let layers = [random_bytes(1, 20_000), random_bytes(2, 5_000_000)];
    let entries: Vec<Value> = layers
        .iter()
        .map(|bytes| {
            upstream.publish_blob_as(REPOSITORY, sha512(bytes), bytes.clone());
            json!({"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": sha512(bytes), "size": bytes.len()})
        })
        .collect();
    let document =
        json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": entries[0], "layers": entries})
            .to_string();
    let digest = sha512(document.as_bytes());
    upstream.publish_manifest_as(REPOSITORY, "sha512", digest, document.clone(), MANIFEST);
    let lie = sha512(b"something else");
    upstream.publish_blob_as(REPOSITORY, lie, layers[0].clone());
    upstream.publish_manifest_as(REPOSITORY, "lie", lie, document.clone(), MANIFEST);
    for path in [manifest(digest), manifest("sha512")] {
        let answer = mirror.get(&path).await;
        assert_eq!(answer.headers()["docker-content-digest"], digest.to_string(), "{path}");
        assert_eq!(body(answer).await.unwrap(), document.as_bytes(), "{path}");
    }
    for bytes in &layers {
        assert_eq!(got(&mirror, &blob(&sha512(bytes))).await, *bytes);
        held(&mirror, &sha512(bytes)).await;
    }
    for wrong in [manifest(lie), manifest("lie"), blob(&lie)] {
        let answer = mirror.get(&wrong).await;
        let refused = answer.status().as_u16() >= 500;
        assert!(refused || body(answer).await.is_none(), "{wrong}");
    }
    assert!(!mirror.file(&lie).exists());
    upstream.fails_with(Fault::RefuseConnection);
    assert_eq!(got(&mirror, &manifest(digest)).await, document.as_bytes());
    let part = mirror.range(&blob(&sha512(&layers[1])), "bytes=4999990-").await;
    assert_eq!(body(part).await.unwrap(), layers[1][4_999_990..]);
}

#[tokio::test]
async fn nested_indexes_artifacts_and_empty_blobs_are_served_and_kept_as_they_are() {
    let upstream = FakeRegistry::start().await;
    let mirror = TestMirror::in_front_of(&upstream).await;
    let image = upstream.publish("library/alpine:3.20");
    let of = |media_type: &str, bytes: &[u8]| json!({"mediaType": media_type, "digest": Digest::of(bytes), "size": bytes.len()});
    let empties: [&'static [u8]; 2] = [b"", b"{}"];
    for empty in empties {
        upstream.publish_blob(REPOSITORY, empty);
    }
    let inner = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [of(MANIFEST, &image.bytes)]})
        .to_string();
    let outer = json!({
        "schemaVersion": 2, "mediaType": INDEX, "annotations": {"a": "b"},
        "manifests": [of(INDEX, inner.as_bytes()), of("application/vnd.example.unknown.v1+json", b"x")],
    })
    .to_string();
    let artifact = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": "application/vnd.example.sbom",
        "config": of("application/vnd.oci.empty.v1+json", b"{}"),
        "layers": [of("text/plain", b"")], "subject": of(MANIFEST, &image.bytes),
    })
    .to_string();
    let chart = json!({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": of("application/vnd.cncf.helm.config.v1+json", b"{}"), "layers": [],
    })
    .to_string();
    let kinds = [
        ("inner", inner, INDEX),
        ("outer", outer, INDEX),
        ("artifact", artifact, MANIFEST),
        ("chart", chart, MANIFEST),
    ];
    for (tag, document, media_type) in &kinds {
        upstream.publish_manifest(REPOSITORY, tag, document.clone(), media_type);
    }
    for online in [true, false] {
        if !online {
            upstream.fails_with(Fault::RefuseConnection);
        }
        for (tag, document, media_type) in &kinds {
            let digest = Digest::of(document.as_bytes());
            for reference in [(*tag).to_owned(), digest.to_string()] {
                let answer = mirror.get(&manifest(&reference)).await;
                assert_eq!(answer.status(), 200, "{tag}, online: {online}");
                assert_eq!(answer.headers()["content-type"], *media_type, "{tag}");
                assert_eq!(answer.headers()["docker-content-digest"], digest.to_string(), "{tag}");
                assert_eq!(body(answer).await.unwrap(), document.as_bytes(), "{tag}, online: {online}");
            }
        }
        for empty in empties {
            let path = blob(&Digest::of(empty));
            assert_eq!(got(&mirror, &path).await, empty, "online: {online}");
            let head = mirror.head(&path).await;
            assert_eq!(
                (head.status().as_u16(), &head.headers()["content-length"]),
                (200, &empty.len().to_string().parse().unwrap())
            );
            held(&mirror, &Digest::of(empty)).await;
        }
    }
}

#[tokio::test]
async fn a_manifest_has_at_most_four_mebibytes() {
    let upstream = FakeRegistry::start().await;
    let mirror = TestMirror::in_front_of(&upstream).await;
    let sized = |bytes: usize| {
        let text = |padding: usize| {
            let annotations = json!({"padding": "x".repeat(padding)});
            json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [], "annotations": annotations})
                .to_string()
        };
        text(bytes - text(0).len())
    };
    let largest = sized(4 * 1024 * 1024);
    let digest = upstream.publish_manifest(REPOSITORY, "largest", largest.clone(), INDEX);
    let too_large = upstream.publish_manifest(REPOSITORY, "larger", sized(4 * 1024 * 1024 + 1), INDEX);
    assert_eq!(got(&mirror, &manifest("largest")).await, largest.as_bytes());
    for reference in ["larger".to_owned(), too_large.to_string()] {
        assert_eq!(mirror.get(&manifest(&reference)).await.status(), 502, "{reference}");
    }
    assert_eq!(mirror.published(), 1);
    upstream.fails_with(Fault::RefuseConnection);
    assert_eq!(got(&mirror, &manifest(digest)).await, largest.as_bytes());
}

#[tokio::test]
async fn a_foreign_layer_is_asked_for_at_its_registry_and_nowhere_else() {
    let (upstream, elsewhere) = (FakeRegistry::start().await, FakeRegistry::start().await);
    let mirror = TestMirror::in_front_of(&upstream).await;
    let (here, away) = (random_bytes(1, 5000), random_bytes(2, 5000));
    upstream.publish_blob(REPOSITORY, here.clone());
    elsewhere.publish_blob("foreign", away.clone());
    let foreign = |bytes: &[u8], media_type: &str| {
        let urls = [format!("{}/v2/foreign/blobs/{}", elsewhere.url(), Digest::of(bytes))];
        json!({"mediaType": media_type, "digest": Digest::of(bytes), "size": bytes.len(), "urls": urls})
    };
    let layers = [
        foreign(&here, "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"),
        foreign(&away, "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"),
        foreign(&away, "application/vnd.oci.image.layer.v1.tar"),
    ];
    let document = json!({"schemaVersion": 2, "mediaType": MediaType::OciManifest.as_str(), "config": layers[0], "layers": layers});
    upstream.publish_manifest(REPOSITORY, "foreign", document.to_string(), MANIFEST);
    got(&mirror, &manifest("foreign")).await;
    assert_eq!(got(&mirror, &blob(&Digest::of(&here))).await, here);
    assert_eq!(mirror.get(&blob(&Digest::of(&away))).await.status(), 404);
    assert_eq!(mirror.head(&blob(&Digest::of(&away))).await.status(), 404);
    assert_eq!(elsewhere.connections(), 0);
}

#[tokio::test]
async fn tags_come_in_the_pages_a_client_wants() {
    let upstream = FakeRegistry::start().await;
    upstream.list_tags(REPOSITORY, &["1", "2", "10", "latest"]);
    let mirror = TestMirror::in_front_of(&upstream).await;
    let page = async |query: &str| {
        let answer = mirror.get(&format!("/v2/{REPOSITORY}/tags/list{query}")).await;
        assert_eq!(answer.status(), 200, "{query}");
        let more = answer.headers().contains_key("link");
        let list: Value = serde_json::from_slice(&body(answer).await.unwrap()).unwrap();
        assert_eq!(list["name"], REPOSITORY);
        let tags = list["tags"].as_array().unwrap().iter().map(|tag| tag.as_str().unwrap().to_owned());
        (tags.collect::<Vec<_>>().join(" "), more)
    };
    assert_eq!(page("").await, ("1 10 2 latest".into(), false));
    assert_eq!(page("?n=3").await, ("1 10 2".into(), true));
    assert_eq!(page("?n=3&last=2").await, ("latest".into(), false));
    assert_eq!(page("?n=0").await, (String::new(), false));
    assert_eq!(page("?last=zzz").await, (String::new(), false));
    let unknown = mirror.get("/v2/library/nothing/tags/list?n=0").await;
    assert_eq!(unknown.status(), 404, "a page of no tags is one of a repository all the same");
}
