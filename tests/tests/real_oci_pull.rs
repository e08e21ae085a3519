//! The pull side of the distribution specification, as our own list of sentences: what its conformance suite checks, and what
//! it leaves out (ranges, 416, resumes, paging in full). A real docker-registry has to pass first, so that the sentences
//! themselves are known to be right; then Sampan in front of it: cold, warm, and with the registry gone.

#![cfg(unix)]

use std::fmt::Write as _;

use sampan_oci::Digest;
use sampan_tests::kinds::{
    Content, DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, OTHER, REPOSITORY, content, push,
};
use sampan_tests::wire::{self, Answer};
use sampan_tests::{Registry, Sampan, SampanOptions, scratch, turn};
use serde_json::Value;

/// The codes of the specification ("Error Codes"), and the one in use for everything else.
const CODES: [&str; 16] = [
    "BLOB_UNKNOWN",
    "BLOB_UPLOAD_INVALID",
    "BLOB_UPLOAD_UNKNOWN",
    "DIGEST_INVALID",
    "MANIFEST_BLOB_UNKNOWN",
    "MANIFEST_INVALID",
    "MANIFEST_UNKNOWN",
    "NAME_INVALID",
    "NAME_UNKNOWN",
    "SIZE_INVALID",
    "UNAUTHORIZED",
    "DENIED",
    "UNSUPPORTED",
    "TOOMANYREQUESTS",
    "UNAVAILABLE",
    "UNKNOWN",
];

/// A registry under test.
struct Subject<'a> {
    address: String,
    content: &'a Content,
    /// Whether the registry behind it is gone: what nobody holds is then 503, or 404 where that is known.
    offline: bool,
    /// Whether it is Sampan, which promises more than the specification.
    sampan: bool,
}

/// What is wrong, if anything.
type Checked = Result<(), String>;

/// Fails with the expression and its values unless it holds.
macro_rules! hold {
    ($condition:expr, $($context:tt)+) => {
        if !$condition {
            return Err(format!("{}: {}", stringify!($condition), format!($($context)+)));
        }
    };
}

impl Subject<'_> {
    fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Result<Answer, String> {
        // Several lines, and OCI last: an order says nothing.
        let accept = [
            ("accept", DOCKER_MANIFEST),
            ("accept", DOCKER_LIST),
            ("accept", OCI_INDEX),
            ("accept", OCI_MANIFEST),
        ];
        let headers: Vec<(&str, &str)> = accept.iter().chain(headers).copied().collect();
        let target = format!("/v2/{path}");
        wire::ask(&self.address, method, &target, &headers, &[])
            .map_err(|error| format!("{method} {target}: {error}"))
    }

    fn get(&self, path: &str) -> Result<Answer, String> {
        self.ask("GET", path, &[])
    }

    /// A 404 in the specification's JSON, by GET and by HEAD.
    fn missing(&self, path: &str, codes: &[&str]) -> Checked {
        for method in ["GET", "HEAD"] {
            let answer = self.ask(method, path, &[])?;
            let unknown = answer.status == 404 || (self.offline && answer.status == 503);
            hold!(unknown, "{method} {path}: {}", answer.status);
            if method == "GET" && answer.status == 404 {
                hold!(error_code(&answer).is_some_and(|code| codes.contains(&&*code)), "{path}: {answer:?}");
            }
        }
        Ok(())
    }

    /// A request that names nothing valid.
    fn refused(&self, path: &str) -> Checked {
        for method in ["GET", "HEAD"] {
            let answer = self.ask(method, path, &[])?;
            hold!(matches!(answer.status, 400 | 404), "{method} {path}: {}", answer.status);
            if method == "GET" && answer.status == 400 {
                hold!(error_code(&answer).is_some_and(|code| CODES.contains(&&*code)), "{path}: {answer:?}");
            }
        }
        Ok(())
    }

    fn tags(&self, query: &str) -> Result<(Vec<String>, Option<String>), String> {
        let answer = self.get(&format!("{REPOSITORY}/tags/list{query}"))?;
        hold!(answer.status == 200, "{query}: {answer:?}");
        let list: Value = serde_json::from_slice(&answer.body).map_err(|error| error.to_string())?;
        hold!(list["name"] == REPOSITORY, "{list}");
        let tags = list["tags"].as_array().cloned().unwrap_or_default();
        let tags = tags.iter().filter_map(|tag| tag.as_str().map(str::to_owned)).collect();
        Ok((tags, answer.header("link").map(str::to_owned)))
    }
}

fn error_code(answer: &Answer) -> Option<String> {
    let is_json = answer.header("content-type")?.starts_with("application/json");
    let body: Value = serde_json::from_slice(&answer.body).ok()?;
    body["errors"][0]["code"].as_str().filter(|_| is_json).map(str::to_owned)
}

fn it_says_that_it_is_a_registry(it: &Subject<'_>) -> Checked {
    for path in ["", "?n=1"] {
        let answer = it.get(path)?;
        hold!(answer.status == 200, "{answer:?}");
        hold!(answer.header("www-authenticate").is_none(), "{answer:?}");
    }
    Ok(())
}

fn a_manifest_of_every_kind_is_its_very_bytes_by_tag_and_by_digest(it: &Subject<'_>) -> Checked {
    for (tag, bytes, media_type) in &it.content.manifests {
        let digest = Digest::of(bytes).to_string();
        for reference in [tag, &digest] {
            let answer = it.get(&format!("{REPOSITORY}/manifests/{reference}"))?;
            hold!(answer.status == 200, "{tag}: {}", String::from_utf8_lossy(&answer.body));
            hold!(answer.body == *bytes, "{tag}: other bytes");
            hold!(answer.header("content-type") == Some(media_type), "{tag}: {:?}", answer.headers);
            hold!(answer.header("docker-content-digest") == Some(&digest), "{tag}: {:?}", answer.headers);
            hold!(
                answer.header("content-length") == Some(&bytes.len().to_string()),
                "{tag}: {:?}",
                answer.headers
            );
        }
    }
    Ok(())
}

fn a_head_of_a_manifest_says_what_its_get_says_without_a_body(it: &Subject<'_>) -> Checked {
    for (tag, bytes, media_type) in &it.content.manifests {
        let digest = Digest::of(bytes).to_string();
        for reference in [tag, &digest] {
            let answer = it.ask("HEAD", &format!("{REPOSITORY}/manifests/{reference}"), &[])?;
            hold!(answer.status == 200 && answer.body.is_empty(), "{tag}: {}", answer.status);
            hold!(answer.header("content-type") == Some(media_type), "{tag}: {:?}", answer.headers);
            hold!(answer.header("docker-content-digest") == Some(&digest), "{tag}: {:?}", answer.headers);
            hold!(
                answer.header("content-length") == Some(&bytes.len().to_string()),
                "{tag}: {:?}",
                answer.headers
            );
        }
    }
    Ok(())
}

fn a_manifest_that_is_not_there_is_404_by_get_and_head(it: &Subject<'_>) -> Checked {
    let nothing = Digest::of(b"nothing has this digest");
    let codes = ["MANIFEST_UNKNOWN", "NAME_UNKNOWN"];
    it.missing(&format!("{REPOSITORY}/manifests/not-there"), &codes)?;
    it.missing(&format!("{REPOSITORY}/manifests/{nothing}"), &codes)?;
    it.missing("conformance/nothing/manifests/latest", &codes)
}

fn what_is_no_reference_is_400_or_404(it: &Subject<'_>) -> Checked {
    for bad in
        ["sha256:totallywrong", "sha256:", "md5:d41d8cd98f00b204e9800998ecf8427e", ".tag", "-tag", "a%2fb"]
    {
        it.refused(&format!("{REPOSITORY}/manifests/{bad}"))?;
    }
    for bad in ["sha256:totallywrong", "sha256:", "tag", "sha256:%2e%2e%2f"] {
        it.refused(&format!("{REPOSITORY}/blobs/{bad}"))?;
    }
    it.refused("Conformance/all/manifests/oci")?;
    it.refused("conformance/all_/manifests/oci")
}

fn a_blob_is_its_very_bytes_with_their_length(it: &Subject<'_>) -> Checked {
    for bytes in &it.content.blobs {
        let digest = Digest::of(bytes).to_string();
        let answer =
            it.ask("GET", &format!("{REPOSITORY}/blobs/{digest}"), &[("accept-encoding", "gzip, zstd")])?;
        hold!(answer.status == 200, "{} bytes: {}", bytes.len(), answer.status);
        hold!(answer.body == *bytes, "{} bytes: other bytes", bytes.len());
        hold!(answer.header("content-length") == Some(&bytes.len().to_string()), "{:?}", answer.headers);
        hold!(
            answer.header("docker-content-digest").is_none_or(|told| told == digest),
            "{:?}",
            answer.headers
        );
        hold!(answer.header("content-encoding").is_none(), "{:?}", answer.headers);
    }
    Ok(())
}

fn a_head_of_a_blob_says_its_length(it: &Subject<'_>) -> Checked {
    for bytes in &it.content.blobs {
        let answer = it.ask("HEAD", &format!("{REPOSITORY}/blobs/{}", Digest::of(bytes)), &[])?;
        hold!(answer.status == 200 && answer.body.is_empty(), "{}", answer.status);
        hold!(answer.header("content-length") == Some(&bytes.len().to_string()), "{:?}", answer.headers);
    }
    Ok(())
}

fn a_blob_that_is_not_there_is_404_by_get_and_head(it: &Subject<'_>) -> Checked {
    let nothing = Digest::of(b"nothing has this digest");
    it.missing(&format!("{REPOSITORY}/blobs/{nothing}"), &["BLOB_UNKNOWN"])
}

fn a_blob_of_another_repository_is_404(it: &Subject<'_>) -> Checked {
    let digest = Digest::of(&it.content.elsewhere);
    it.missing(&format!("{REPOSITORY}/blobs/{digest}"), &["BLOB_UNKNOWN"])?;
    let there = it.get(&format!("{OTHER}/blobs/{digest}"));
    hold!(it.offline || there?.body == it.content.elsewhere, "{OTHER} has it");
    Ok(())
}

fn a_part_of_a_blob_is_exactly_that_part(it: &Subject<'_>) -> Checked {
    let whole = it.content.large();
    let (size, path) = (whole.len(), format!("{REPOSITORY}/blobs/{}", Digest::of(whole)));
    for (range, start, end) in [
        ("bytes=0-0".to_owned(), 0, 1),
        ("bytes=0-".to_owned(), 0, size),
        ("bytes=100-199".to_owned(), 100, 200),
        (format!("bytes={}-", size - 1), size - 1, size),
        (format!("bytes={}-{}", size / 2, size - 1), size / 2, size),
        (format!("bytes={}-{}", size - 10, size + 10), size - 10, size),
        ("bytes=-1".to_owned(), size - 1, size),
        ("bytes=-1000".to_owned(), size - 1000, size),
        (format!("bytes=-{}", size * 2), 0, size),
    ] {
        let answer = it.ask("GET", &path, &[("range", &range)])?;
        hold!(answer.status == 206, "{range}: {}", answer.status);
        let told = format!("bytes {start}-{}/{size}", end - 1);
        hold!(answer.header("content-range") == Some(&told), "{range}: {:?}", answer.headers);
        hold!(
            answer.header("content-length") == Some(&(end - start).to_string()),
            "{range}: {:?}",
            answer.headers
        );
        hold!(answer.body == whole[start..end], "{range}: other bytes");
    }
    Ok(())
}

fn a_part_outside_a_blob_is_416_with_its_size(it: &Subject<'_>) -> Checked {
    let whole = it.content.large();
    let (size, path) = (whole.len(), format!("{REPOSITORY}/blobs/{}", Digest::of(whole)));
    for range in [format!("bytes={size}-"), format!("bytes={}-{}", size + 5, size + 10)] {
        let answer = it.ask("GET", &path, &[("range", &range)])?;
        hold!(answer.status == 416, "{range}: {}", answer.status);
        let told = format!("bytes */{size}");
        hold!(answer.header("content-range") == Some(&told), "{range}: {:?}", answer.headers);
    }
    Ok(())
}

fn a_range_that_cannot_be_read_is_ignored_or_refused(it: &Subject<'_>) -> Checked {
    let whole = it.content.large();
    let path = format!("{REPOSITORY}/blobs/{}", Digest::of(whole));
    for range in ["bytes=a-b", "bytes=9-5", "bytes", "lines=0-5", "bytes=--5"] {
        let answer = it.ask("GET", &path, &[("range", range)])?;
        let ignored = answer.status == 200 && answer.body == whole;
        hold!(ignored || answer.status == 416, "{range}: {}", answer.status);
    }
    Ok(())
}

fn two_parts_make_the_whole(it: &Subject<'_>) -> Checked {
    let whole = it.content.large();
    let path = format!("{REPOSITORY}/blobs/{}", Digest::of(whole));
    for at in [1, 4096, whole.len() / 3, whole.len() - 1] {
        let mut first = it.ask("GET", &path, &[("range", &format!("bytes=0-{}", at - 1))])?.body;
        first.extend(it.ask("GET", &path, &[("range", &format!("bytes={at}-"))])?.body);
        hold!(first == whole, "cut at {at}");
    }
    Ok(())
}

fn tags_are_listed_whole_and_in_lexical_order(it: &Subject<'_>) -> Checked {
    let (tags, link) = it.tags("")?;
    hold!(tags == it.content.tags().into_iter().collect::<Vec<_>>(), "{tags:?}");
    hold!(link.is_none(), "{link:?}");
    let (tags, link) = it.tags("?n=1000")?;
    hold!(tags.len() == it.content.tags().len() && link.is_none(), "{tags:?} {link:?}");
    Ok(())
}

fn pages_of_tags_lead_from_one_to_the_next_and_to_an_end(it: &Subject<'_>) -> Checked {
    for n in [1, 2, 5] {
        let (mut all, mut query) = (Vec::new(), format!("?n={n}"));
        for _ in 0..=it.content.tags().len() {
            let (tags, link) = it.tags(&query)?;
            hold!(tags.len() <= n, "{query}: {tags:?}");
            all.extend(tags);
            let Some(link) = link else { break };
            let target = link.strip_prefix('<').and_then(|link| link.split_once(">; rel=\"next\""));
            hold!(target.is_some(), "{link}");
            let target = target.map(|(target, _)| target).unwrap_or_default();
            // Relative, or at the very host that was asked.
            let path = target.strip_prefix(&format!("http://{}", it.address)).unwrap_or(target);
            let next = path.strip_prefix(&format!("/v2/{REPOSITORY}/tags/list"));
            hold!(next.is_some_and(|query| query.starts_with('?')), "{link}");
            next.unwrap_or_default().clone_into(&mut query);
        }
        hold!(all == it.content.tags().into_iter().collect::<Vec<_>>(), "n={n}: {all:?}");
    }
    Ok(())
}

fn a_page_begins_after_the_last_tag_of_the_one_before(it: &Subject<'_>) -> Checked {
    let all: Vec<String> = it.content.tags().into_iter().collect();
    let (tags, _) = it.tags(&format!("?n=2&last={}", all[1]))?;
    hold!(tags == all[2..4], "{tags:?}");
    let (tags, link) = it.tags(&format!("?n=2&last={}", all[all.len() - 1]))?;
    hold!(tags.is_empty() && link.is_none(), "{tags:?} {link:?}");
    // A tag that is not there is a place in the order all the same.
    let (tags, _) = it.tags("?n=1&last=docker0")?;
    hold!(tags == ["empty-layer"], "{tags:?}");
    Ok(())
}

fn tags_of_a_repository_that_is_not_there_are_404(it: &Subject<'_>) -> Checked {
    let answer = it.get("conformance/nothing/tags/list")?;
    hold!(answer.status == 404 || (it.offline && answer.status == 503), "{answer:?}");
    hold!(it.offline || error_code(&answer).as_deref() == Some("NAME_UNKNOWN"), "{answer:?}");
    Ok(())
}

fn referrers_are_listed_by_the_api_or_by_the_fallback_tag(it: &Subject<'_>) -> Checked {
    let subject = it.content.subject;
    let mut answer = it.get(&format!("{REPOSITORY}/referrers/{subject}"))?;
    hold!(answer.status == 200 || (answer.status == 404 && !it.sampan), "{answer:?}");
    if answer.status == 404 {
        answer = it.get(&format!("{REPOSITORY}/manifests/sha256-{}", subject.hex()))?;
    }
    hold!(answer.status == 200 && answer.header("content-type") == Some(OCI_INDEX), "{answer:?}");
    let list: Value = serde_json::from_slice(&answer.body).map_err(|error| error.to_string())?;
    hold!(list["manifests"][0]["digest"] == it.content.referrer.to_string(), "{list}");
    Ok(())
}

fn referrers_are_filtered_where_the_answer_says_so(it: &Subject<'_>) -> Checked {
    for (kind, entries) in [("application/vnd.example.sbom.v1", 1), ("application/vnd.example.other", 0)] {
        let answer = it.get(&format!("{REPOSITORY}/referrers/{}?artifactType={kind}", it.content.subject))?;
        if answer.status == 404 && !it.sampan {
            return Ok(());
        }
        let filtered = answer.header("oci-filters-applied") == Some("artifactType");
        hold!(filtered || !it.sampan, "{:?}", answer.headers);
        let list: Value = serde_json::from_slice(&answer.body).map_err(|error| error.to_string())?;
        hold!(
            !filtered || list["manifests"].as_array().is_some_and(|all| all.len() == entries),
            "{kind}: {list}"
        );
    }
    Ok(())
}

fn what_nothing_refers_to_has_an_empty_list(it: &Subject<'_>) -> Checked {
    let answer = it.get(&format!("{REPOSITORY}/referrers/{}", Digest::of(b"nothing has this digest")))?;
    if answer.status == 404 && !it.sampan {
        return Ok(());
    }
    hold!(answer.status == 200 && answer.header("content-type") == Some(OCI_INDEX), "{answer:?}");
    let list: Value = serde_json::from_slice(&answer.body).map_err(|error| error.to_string())?;
    hold!(list["manifests"].as_array().is_some_and(Vec::is_empty), "{list}");
    it.refused(&format!("{REPOSITORY}/referrers/sha256:totallywrong"))
}

/// What docker-registry 2.8 does not keep itself, though its own specification says so: it answers 500 to a digest that is
/// none, and gives all tags, in no order, whatever page is asked for. In front of it Sampan has to keep these too.
const NOT_BY_DOCKER_REGISTRY: [&str; 4] = [
    "what_is_no_reference_is_400_or_404",
    "tags_are_listed_whole_and_in_lexical_order",
    "pages_of_tags_lead_from_one_to_the_next_and_to_an_end",
    "a_page_begins_after_the_last_tag_of_the_one_before",
];

type Check = (&'static str, fn(&Subject<'_>) -> Checked);

/// Every check by its own name.
macro_rules! specification {
    ($($check:ident),+ $(,)?) => { [$((stringify!($check), $check as fn(&Subject<'_>) -> Checked)),+] };
}

fn specification() -> Vec<Check> {
    specification![
        it_says_that_it_is_a_registry,
        a_manifest_of_every_kind_is_its_very_bytes_by_tag_and_by_digest,
        a_head_of_a_manifest_says_what_its_get_says_without_a_body,
        a_manifest_that_is_not_there_is_404_by_get_and_head,
        what_is_no_reference_is_400_or_404,
        a_blob_is_its_very_bytes_with_their_length,
        a_head_of_a_blob_says_its_length,
        a_blob_that_is_not_there_is_404_by_get_and_head,
        a_blob_of_another_repository_is_404,
        a_part_of_a_blob_is_exactly_that_part,
        a_part_outside_a_blob_is_416_with_its_size,
        a_range_that_cannot_be_read_is_ignored_or_refused,
        two_parts_make_the_whole,
        tags_are_listed_whole_and_in_lexical_order,
        pages_of_tags_lead_from_one_to_the_next_and_to_an_end,
        a_page_begins_after_the_last_tag_of_the_one_before,
        tags_of_a_repository_that_is_not_there_are_404,
        referrers_are_listed_by_the_api_or_by_the_fallback_tag,
        referrers_are_filtered_where_the_answer_says_so,
        what_nothing_refers_to_has_an_empty_list,
    ]
    .to_vec()
}

/// Holds a registry against every sentence, and returns those it does not keep.
fn failures(who: &str, it: &Subject<'_>) -> String {
    let mut failed = String::new();
    for (name, check) in specification() {
        let sentence = name.replace('_', " ");
        // For whoever runs this by hand and wants to see the list.
        match check(it) {
            Ok(()) => eprintln!("{who}: {sentence}: yes"),
            Err(_) if !it.sampan && NOT_BY_DOCKER_REGISTRY.contains(&name) => {
                eprintln!("{who}: {sentence}: no, as is known");
            }
            Err(why) => {
                let why: String = why.chars().take(600).collect();
                let _ = writeln!(failed, "{who}: {sentence}: NO: {why}");
            }
        }
    }
    failed
}

#[test]
fn real_docker_registry_and_sampan_in_front_of_it_keep_the_same_specification() {
    let Some(_turn) = turn(&["docker-registry"]) else { return };
    let storage = scratch();
    let mut registry = Registry::start(storage.path());
    let direct = format!("127.0.0.1:{}", registry.port());
    let content = content();
    push(&direct, &content);
    let options = SampanOptions { upstream: registry.url(), ..SampanOptions::default() };
    let sampan = Sampan::start(&options);
    let mut subject = Subject { address: direct, content: &content, offline: false, sampan: false };
    let mut failed = failures("docker-registry", &subject);
    (subject.address, subject.sampan) = (sampan.address(), true);
    failed += &failures("Sampan, cold", &subject);
    failed += &failures("Sampan, warm", &subject);
    registry.stop();
    subject.offline = true;
    failed += &failures("Sampan, its registry gone", &subject);
    assert!(failed.is_empty(), "\n{failed}");
}
