//! What an upstream may do, and what becomes of it: specifications over real sockets, against a registry that lies.

mod allowances;
mod blobs;
mod listings;
mod logins;
mod manifests;
mod redirects;
mod sources;
mod tokens;

use futures_util::TryStreamExt as _;
use sampan_oci::{Reference, RepositoryName};
use sampan_testkit::FakeRegistry;
use sampan_upstream::{BlobBody, Upstream, UpstreamConfig, UpstreamError, Url, client};

/// An upstream with the limits that ship, in front of a fake registry.
fn upstream(fake: &FakeRegistry) -> Upstream {
    let url = Url::parse(&fake.url()).expect("an origin is a URL");
    Upstream::new(
        UpstreamConfig { registry: fake.registry(), url },
        client().expect("there are certificates"),
    )
}

fn repository(text: &str) -> RepositoryName {
    text.parse().expect("a repository")
}

fn reference(text: &str) -> Reference {
    text.parse().expect("a reference")
}

/// All bytes of a body, or the error it ends in.
async fn collect(body: BlobBody) -> Result<Vec<u8>, UpstreamError> {
    body.stream
        .try_fold(Vec::new(), |mut all, piece| async move {
            all.extend_from_slice(&piece);
            Ok(all)
        })
        .await
}

/// The bytes before the error, and the error.
async fn until_error(body: BlobBody) -> (Vec<u8>, UpstreamError) {
    let mut all = Vec::new();
    let mut stream = body.stream;
    loop {
        match stream.try_next().await {
            Ok(Some(piece)) => all.extend_from_slice(&piece),
            Ok(None) => panic!("the body ended well after {} bytes", all.len()),
            Err(error) => return (all, error),
        }
    }
}
