//! The fake registry itself: its socket, its state, and what tests say to it.

use std::collections::HashMap;
use std::future::poll_fn;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use bytes::Bytes;
use sampan_oci::{Digest, MediaType, RegistryName, RepositoryName, Tag};
use serde_json::json;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::answer::{Answer, Desk, Serials, blob_range};
use crate::connection::{duration_of, late, serve};
use crate::content::{layer_bytes, seed_of};
use crate::fault::{Fault, Faults, Rule, TokenRule};
use crate::image::{Image, ImageManifest, ImageSpec, IndexSpec};
use crate::meter::{Meter, RateLimit};
use crate::record::{Kind, Record, Recorded};
use crate::shelf::{Document, Shelf};
use crate::token::Tokens;

/// A registry on 127.0.0.1 that answers honestly until told otherwise. Runs on the runtime that started it; dropping
/// it closes the socket and every connection.
/// ```
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// use sampan_testkit::{Fault, FakeRegistry, Kind};
/// let upstream = FakeRegistry::start().await;
/// let alpine = upstream.publish("library/alpine:3.20");
/// upstream.fails_on(Kind::Blob, Fault::CutAfter(1000));
/// // ... pull alpine.digest from upstream.url() ...
/// upstream.heals();
/// assert_eq!(upstream.requests(Kind::Blob), 0);
/// # });
/// ```
#[derive(Debug)]
pub struct FakeRegistry {
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    address: SocketAddr,
    state: Mutex<State>,
    socket: Mutex<Socket>,
    reopened: Notify,
    /// Told when open connections have to die.
    pub(crate) cut: watch::Sender<()>,
    /// Told when stalled answers go on.
    pub(crate) heals: watch::Sender<()>,
    /// Told at every request and every piece of a body.
    progress: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    shelf: Shelf,
    faults: Faults,
    tokens: Tokens,
    token_rule: Option<TokenRule>,
    record: Record,
    serials: Serials,
    meter: Option<Meter>,
    /// Connections that are open.
    open: usize,
    /// Answers on their way, by the kind of their request.
    in_flight: HashMap<Kind, usize>,
    /// When the link has carried everything it was given.
    link_free: Option<Instant>,
}

#[derive(Debug)]
enum Socket {
    Open(TcpListener),
    /// Bound without listening: connections are refused, and no other process is given the port meanwhile.
    Refusing {
        /// Kept for its port alone.
        _reservation: Option<TcpSocket>,
    },
}

impl FakeRegistry {
    /// Starts an empty registry on a free port.
    /// # Panics
    /// If the loopback interface has no free port.
    pub async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("loopback has a free port");
        let shared = Arc::new(Shared {
            address: listener.local_addr().expect("a bound socket has an address"),
            state: Mutex::default(),
            socket: Mutex::new(Socket::Open(listener)),
            reopened: Notify::new(),
            cut: watch::Sender::new(()),
            heals: watch::Sender::new(()),
            progress: watch::Sender::new(()),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(shared.clone()));
        Self { shared, _tasks: tasks }
    }

    /// Its origin, `http://127.0.0.1:<port>`, without a slash at the end.
    pub fn url(&self) -> String {
        self.shared.origin()
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.shared.address
    }

    /// Its name as a registry, `127.0.0.1:<port>`.
    /// # Panics
    /// Never: an address is a registry's name.
    pub fn registry(&self) -> RegistryName {
        self.shared.address.to_string().parse().expect("an address is a registry's name")
    }

    // --- what it holds ---

    /// Publishes an OCI image for linux/amd64 with three layers (300,000, 40,000 and 1,000 bytes) made from its name.
    /// # Panics
    /// If `name` is not `repository:tag`.
    pub fn publish(&self, name: &str) -> Image {
        self.publish_image(name, &ImageSpec::new(seed_of(name), &[300_000, 40_000, 1_000]))
    }

    /// Publishes an image as described, as a plain manifest without an index. A tag published again moves.
    /// # Panics
    /// If `name` is not `repository:tag`.
    pub fn publish_image(&self, name: &str, spec: &ImageSpec) -> Image {
        let manifest = spec.build();
        self.put(name, manifest.bytes.clone(), manifest.media_type, vec![manifest])
    }

    /// Publishes an index as described, with its images.
    /// # Panics
    /// If `name` is not `repository:tag`.
    pub fn publish_index(&self, name: &str, spec: &IndexSpec) -> Image {
        let (bytes, media_type, manifests) = spec.build();
        self.put(name, bytes, media_type, manifests)
    }

    fn put(&self, name: &str, bytes: Bytes, media_type: MediaType, manifests: Vec<ImageManifest>) -> Image {
        let (repository, tag) = name.rsplit_once(':').expect("a name is `repository:tag`");
        let tag: Tag = tag.parse().expect("the tag is valid");
        let image = Image {
            repository: named(repository),
            tag,
            digest: Digest::of(&bytes),
            media_type,
            bytes,
            manifests,
        };
        self.shared.state().shelf.put_image(&image);
        image
    }

    /// Puts a blob into a repository.
    /// # Panics
    /// If `repository` is not one.
    pub fn publish_blob(&self, repository: &str, bytes: impl Into<Bytes>) -> Digest {
        self.shared.state().shelf.put_blob(&named(repository), bytes.into())
    }

    /// Puts any bytes under a tag and their digest, served as `content_type`: manifests no builder would make.
    /// # Panics
    /// If `repository` is not one.
    pub fn publish_manifest(
        &self,
        repository: &str,
        tag: &str,
        bytes: impl Into<Bytes>,
        content_type: &str,
    ) -> Digest {
        let mut state = self.shared.state();
        let digest = state.shelf.put_manifest(&named(repository), bytes.into(), content_type);
        state.shelf.put_tag(&named(repository), tag, digest);
        digest
    }

    /// Puts a blob into a repository under a digest that need not be its own: one of another algorithm, or a lie.
    /// # Panics
    /// If `repository` is not one.
    pub fn publish_blob_as(&self, repository: &str, digest: Digest, bytes: impl Into<Bytes>) {
        self.shared.state().shelf.put_blob_as(&named(repository), digest, bytes.into());
    }

    /// The same for a manifest under a tag.
    /// # Panics
    /// If `repository` is not one.
    pub fn publish_manifest_as(
        &self,
        repository: &str,
        tag: &str,
        digest: Digest,
        bytes: impl Into<Bytes>,
        content_type: &str,
    ) {
        let mut state = self.shared.state();
        let document = Document { bytes: bytes.into(), content_type: content_type.into() };
        state.shelf.put_manifest_as(&named(repository), digest, document);
        state.shelf.put_tag(&named(repository), tag, digest);
    }

    /// Lists texts as tags of a repository, valid or not, without anything behind them.
    /// # Panics
    /// If `repository` is not one.
    pub fn list_tags<T: AsRef<str>>(&self, repository: &str, tags: &[T]) {
        let mut state = self.shared.state();
        for tag in tags {
            state.shelf.list_tag(&named(repository), tag.as_ref());
        }
    }

    /// Publishes an artifact that refers to `subject`; returns its manifest's digest.
    /// # Panics
    /// If `repository` is not one.
    pub fn publish_referrer(&self, repository: &str, subject: &Digest, artifact_type: &str) -> Digest {
        let mut state = self.shared.state();
        let name = named(repository);
        let payload = layer_bytes(seed_of(artifact_type), 100);
        let (size, blob) = (payload.len(), state.shelf.put_blob(&name, payload));
        let empty = state.shelf.put_blob(&name, Bytes::from_static(b"{}"));
        let media_type = MediaType::OciManifest.as_str();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": media_type, "artifactType": artifact_type,
            "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": empty, "size": 2},
            "layers": [{"mediaType": artifact_type, "digest": blob, "size": size}],
            "subject": {"mediaType": media_type, "digest": subject, "size": 1},
        })
        .to_string();
        let size = manifest.len();
        let digest = state.shelf.put_manifest(&name, manifest.into(), media_type);
        let entry =
            json!({"mediaType": media_type, "digest": digest, "size": size, "artifactType": artifact_type});
        state.shelf.put_referrer(&name, *subject, entry);
        digest
    }

    /// Holds an image's blobs for `/cdn/<digest>` alone: this registry is where redirects of another one lead.
    pub fn hold(&self, image: &Image) {
        let mut state = self.shared.state();
        for blob in image.blobs() {
            state.shelf.hold(blob.bytes.clone());
        }
    }

    /// Makes a repository answer 401 whatever token comes, as Docker Hub does for private ones.
    /// # Panics
    /// If `repository` is not one.
    pub fn make_private(&self, repository: &str) {
        self.shared.state().shelf.set_private(&named(repository));
    }

    /// Makes one login the only good one: it opens what is [private](Self::make_private), by a token of this registry's
    /// `/token` or shown as it is. `None`: no login is good any more, nor is any token that was given to one.
    pub fn knows_login(&self, login: Option<(&str, &str)>) {
        self.shared.state().tokens.set_login(login);
    }

    /// Counts manifests from now on, and refuses more than the limit. Healing does not end that; a new limit begins anew.
    pub fn limits(&self, limit: RateLimit) {
        self.shared.state().meter = Some(Meter::new(limit));
    }

    /// Begins a new window for every source.
    pub fn refills(&self) {
        if let Some(meter) = &mut self.shared.state().meter {
            meter.refill();
        }
    }

    /// Manifests counted in this window for all sources together.
    pub fn spent(&self) -> u64 {
        self.shared.state().meter.as_ref().map_or(0, Meter::spent)
    }

    // --- how it fails ---

    /// Fails from now on, for every kind of request, on top of faults already in force.
    pub fn fails_with(&self, fault: Fault) {
        self.add(Rule { fault, kind: None, left: None });
    }

    /// Fails from now on, for one kind of request.
    pub fn fails_on(&self, kind: Kind, fault: Fault) {
        self.add(Rule { fault, kind: Some(kind), left: None });
    }

    /// Fails for the next `requests` requests of one kind, then no more.
    pub fn fails_next(&self, requests: u64, kind: Kind, fault: Fault) {
        self.add(Rule { fault, kind: Some(kind), left: Some(requests) });
    }

    fn add(&self, rule: Rule) {
        let mut state = self.shared.state();
        if let Fault::RequireToken(token_rule) = &rule.fault {
            state.token_rule = Some(token_rule.clone());
        }
        state.faults.add(rule);
        if state.faults.refuses_connections() {
            self.shared.close();
        }
    }

    /// Breaks every connection that is open, in the middle of whatever it carries.
    pub fn cuts(&self) {
        self.shared.cut.send_replace(());
    }

    /// Ends every fault; what stalled goes on, and a closed socket opens again at the same port.
    /// # Panics
    /// If another process took the port meanwhile.
    pub fn heals(&self) {
        let mut state = self.shared.state();
        state.faults.clear();
        state.token_rule = None;
        self.shared.open().expect("the port is still ours");
        self.shared.heals.send_replace(());
    }

    // --- what it saw ---

    /// How many requests of a kind came, of any method.
    pub fn requests(&self, kind: Kind) -> u64 {
        self.shared.state().record.count(|request| request.kind == kind)
    }

    /// How many requests of a kind came with this method.
    pub fn requests_by(&self, method: &str, kind: Kind) -> u64 {
        self.shared.state().record.count(|request| request.kind == kind && request.method == method)
    }

    /// How many requests came for this path, with this method.
    pub fn requests_to(&self, method: &str, path: &str) -> u64 {
        self.shared.state().record.count(|request| request.path == path && request.method == method)
    }

    /// How many GETs of this blob came, in any repository.
    pub fn fetches_of(&self, digest: &Digest) -> u64 {
        let end = format!("/{digest}");
        self.shared.state().record.count(|request| request.method == "GET" && request.path.ends_with(&end))
    }

    /// Body bytes handed to the network for a kind.
    pub fn body_bytes(&self, kind: Kind) -> u64 {
        self.shared.state().record.body_bytes_of(kind)
    }

    /// Body bytes handed to the network for manifests and blobs, through redirects or not: what a pull fetched.
    pub fn pulled_bytes(&self) -> u64 {
        let state = self.shared.state();
        [Kind::Manifest, Kind::Blob, Kind::Cdn].into_iter().map(|kind| state.record.body_bytes_of(kind)).sum()
    }

    /// Every request, oldest first.
    pub fn log(&self) -> Vec<Recorded> {
        self.shared.state().record.requests.clone()
    }

    /// The bytes of this blob that GETs were answered with, in the order of the requests: a whole answer is `0..size`.
    /// Whether they all arrived is another question.
    pub fn ranges_of(&self, digest: &Digest) -> Vec<Range<u64>> {
        let state = self.shared.state();
        state.record.ranges.iter().filter(|(of, _)| of == digest).map(|(_, range)| range.clone()).collect()
    }

    /// How many connections were accepted.
    pub fn connections(&self) -> u64 {
        self.shared.state().record.accepted
    }

    /// How many connections are open now, idle ones too.
    pub fn connections_now(&self) -> usize {
        self.shared.state().open
    }

    /// The most connections that were open at once, idle ones too.
    pub fn peak_connections(&self) -> usize {
        self.shared.state().record.peak
    }

    /// Forgets what it saw and counted; connections that are open now stay in the peak.
    pub fn forget(&self) {
        let mut state = self.shared.state();
        state.record = Record { peak: state.open, ..Record::default() };
    }

    /// Waits until `n` requests of a kind came.
    pub async fn saw(&self, kind: Kind, n: u64) {
        self.until(|record| record.count(|request| request.kind == kind) >= n).await;
    }

    /// Waits until `bytes` body bytes were handed to the network for a kind.
    pub async fn sent(&self, kind: Kind, bytes: u64) {
        self.until(|record| record.body_bytes_of(kind) >= bytes).await;
    }

    async fn until(&self, reached: impl Fn(&Record) -> bool) {
        let mut progress = self.shared.progress.subscribe();
        while !reached(&self.shared.state().record) {
            // The sender lives in `self`: this cannot end early.
            let _ = progress.changed().await;
        }
    }
}

fn named(repository: &str) -> RepositoryName {
    repository.parse().expect("the repository's name is valid")
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn socket(&self) -> MutexGuard<'_, Socket> {
        self.socket.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Records a request of `source` and decides its answer; `None` when the connection shall just die.
    pub(crate) fn answer(&self, request: Recorded, source: IpAddr) -> Option<Answer> {
        let mut guard = self.state();
        let state = &mut *guard;
        if state.faults.refuses_connections() {
            return None;
        }
        let faults = state.faults.take(request.kind);
        let in_flight = state.in_flight.entry(request.kind).or_default();
        let mut desk = Desk {
            origin: &self.origin(),
            port: self.address.port(),
            shelf: &state.shelf,
            tokens: &mut state.tokens,
            token_rule: state.token_rule.clone(),
            serials: &mut state.serials,
            in_flight: *in_flight,
        };
        let mut answer = desk.answer(&request, &faults);
        if let Some(meter) = &mut state.meter {
            meter.apply(&request, source, &mut answer);
        }
        *in_flight += usize::from(!answer.is_too_many);
        if request.method == "GET" {
            state.record.ranges.extend(blob_range(&request, &answer, &state.shelf));
        }
        state.record.requests.push(request);
        drop(guard);
        self.progress.send_replace(());
        Some(answer)
    }

    /// An answer that [`answer`](Self::answer) gave is on its way no longer.
    pub(crate) fn landed(&self, kind: Kind) {
        if let Some(in_flight) = self.state().in_flight.get_mut(&kind) {
            *in_flight -= 1;
        }
    }

    pub(crate) fn opened(&self) {
        let mut state = self.state();
        state.open += 1;
        state.record.accepted += 1;
        state.record.peak = state.record.peak.max(state.open);
    }

    pub(crate) fn closed(&self) {
        self.state().open -= 1;
    }

    /// When the link has carried `bytes` more, at this rate, after all it was given before.
    pub(crate) fn carried(&self, bytes: usize, bytes_per_second: u64) -> Instant {
        let mut state = self.state();
        let ends = late(state.link_free.unwrap_or_else(Instant::now)) + duration_of(bytes, bytes_per_second);
        state.link_free = Some(ends);
        ends
    }

    pub(crate) fn wrote(&self, kind: Kind, bytes: usize) {
        *self.state().record.body_bytes.entry(kind).or_default() += bytes as u64;
        self.progress.send_replace(());
    }

    fn close(&self) {
        let mut socket = self.socket();
        if matches!(*socket, Socket::Open(_)) {
            // First close, then bind again: two sockets cannot be bound at once everywhere.
            *socket = Socket::Refusing { _reservation: None };
            *socket = Socket::Refusing { _reservation: bound(self.address).ok() };
        }
        self.cut.send_replace(());
    }

    fn open(&self) -> std::io::Result<()> {
        let mut socket = self.socket();
        if matches!(*socket, Socket::Refusing { .. }) {
            *socket = Socket::Refusing { _reservation: None };
            *socket = Socket::Open(bound(self.address)?.listen(1024)?);
            self.reopened.notify_one();
        }
        Ok(())
    }
}

fn bound(address: SocketAddr) -> std::io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    // Connections just closed linger in TIME_WAIT; the port is ours all the same.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// Accepts connections for as long as the registry lives; they die with this task.
async fn accept(shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            stream = next(&shared) => { connections.spawn(serve(stream, shared.clone())); }
            () = shared.reopened.notified() => {}
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn next(shared: &Shared) -> TcpStream {
    poll_fn(|context| match &*shared.socket() {
        Socket::Open(listener) => match listener.poll_accept(context) {
            Poll::Ready(Ok((stream, _))) => Poll::Ready(stream),
            // A connection that died before it was accepted: ask again at the next wake-up.
            Poll::Ready(Err(_)) => {
                context.waker().wake_by_ref();
                Poll::Pending
            }
            Poll::Pending => Poll::Pending,
        },
        Socket::Refusing { .. } => Poll::Pending,
    })
    .await
}
