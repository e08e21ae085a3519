//! What the mirror tells the rest of Sampan while it serves. Statistics, live progress and logs are folds over these.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{Digest, ImageName, Manifest, Millis, Outcome, Reference, Source};

/// Names one answer to one request, unique within a run of the mirror.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransferId(pub u64);

/// What kind of thing a request asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RequestKind {
    /// `/v2/`, the version check.
    Ping,
    /// A manifest or index.
    Manifest,
    /// A blob.
    Blob,
    /// A tag list.
    Tags,
    /// A referrers list.
    Referrers,
    /// Anything else: it was refused.
    Other,
}

/// The end of one request: told once, after the last byte left or the answer broke off.
#[derive(Clone, Debug)]
pub struct Answered {
    /// The answer.
    pub id: TransferId,
    /// When it ended.
    pub at: Millis,
    /// Milliseconds from the request's head to its end.
    pub took_millis: u64,
    /// What was asked for.
    pub kind: RequestKind,
    /// Whether it was a HEAD request.
    pub head: bool,
    /// The repository, where the request named a valid one.
    pub image: Option<ImageName>,
    /// The tag or digest, where the request named a valid one.
    pub reference: Option<Reference>,
    /// What became of it.
    pub outcome: Outcome,
    /// The HTTP status sent.
    pub status: u16,
    /// Body bytes handed to the client.
    pub served_bytes: u64,
    /// The client's `User-Agent`, cut at 200 bytes and printable ASCII only: tells docker, BuildKit, containerd, podman.
    pub user_agent: String,
}

/// Something that happened at the mirror.
#[derive(Clone, Debug)]
pub enum Event {
    /// A GET of a manifest is about to be answered: a pull of `image` goes on, and these are its parts.
    Manifest {
        /// When.
        at: Millis,
        /// The repository.
        image: ImageName,
        /// What the client asked for.
        reference: Reference,
        /// The manifest, with its digest.
        manifest: Arc<Manifest>,
        /// How it was obtained.
        outcome: Outcome,
    },
    /// A blob begins to flow to a client.
    BlobStarted {
        /// The answer.
        id: TransferId,
        /// When.
        at: Millis,
        /// The repository.
        image: ImageName,
        /// The blob.
        digest: Digest,
        /// The whole blob's size in bytes.
        size: u64,
        /// The first byte the client asked for.
        offset: u64,
        /// Where the bytes come from.
        source: Source,
    },
    /// A blob's client has been handed `sent` bytes so far. Told a few times a second; may be dropped under load.
    BlobProgress {
        /// The answer.
        id: TransferId,
        /// When.
        at: Millis,
        /// Bytes handed over since the answer began, without the offset.
        sent: u64,
    },
    /// Body bytes came in from an upstream for `image`: `bytes` more since the last such event. Never dropped.
    Fetched {
        /// When.
        at: Millis,
        /// The repository they were fetched for.
        image: ImageName,
        /// The blob or manifest they belong to, where its digest is known.
        digest: Option<Digest>,
        /// Body bytes received since the last event for it.
        bytes: u64,
    },
    /// How the download of a blob goes. Told when it changes, at most a few times a second, and once at its end with no
    /// connections and no waiting. Never dropped then.
    Download {
        /// When.
        at: Millis,
        /// The repository it was begun for; others may follow it.
        image: ImageName,
        /// The blob.
        digest: Digest,
        /// Connections in use now.
        connections: u32,
        /// Since it began: requests that had to be asked again before a byte came.
        retries: u64,
        /// Since it began: bodies that broke off or were replaced in the middle, and continued elsewhere.
        repaired: u64,
        /// Nothing comes from the upstream now, and the download waits for it to come back.
        waiting: bool,
    },
    /// An upstream did not send what the digest it was asked for names. Never dropped.
    Lied {
        /// When it was found out.
        at: Millis,
        /// The repository it was asked for.
        image: ImageName,
        /// What it was asked for.
        digest: Digest,
        /// The upstream's address.
        url: String,
        /// What it did.
        lie: Lie,
        /// Whether it is asked nothing any more; a registry itself cannot be dropped.
        dropped: bool,
    },
    /// A request ended. Never dropped.
    Answered(Answered),
}

/// How an upstream lied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lie {
    /// It sent other bytes than the digest names.
    Bytes,
    /// It told another size than the bytes have.
    Size,
    /// It sent another part than the one asked for.
    Part,
    /// Its header named another digest than the one asked for.
    Digest,
}

impl Lie {
    /// One stable word for logs and files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bytes => "bytes",
            Self::Size => "size",
            Self::Part => "part",
            Self::Digest => "digest",
        }
    }
}
