//! The protocol over a real socket, against a handler that only remembers.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::FutureExt;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::Notify;

use super::*;
use crate::api::{Cache, ClearSelection, Mirror, MirrorState, Prefetch, Settings, Totals};
use crate::client::{Client, ClientError};

fn snapshot(sequence: u64) -> Snapshot {
    Snapshot {
        sequence,
        at: 0,
        mirror: Mirror {
            version: "0".into(),
            listen: "127.0.0.1:1".into(),
            started: 0,
            state: MirrorState::Serving,
            paused_until: None,
            upstreams: Vec::new(),
            tag_answers: crate::api::TagAnswers::default(),
        },
        today: Totals::default(),
        // Large, so that a reader who does not read fills the socket soon.
        cache: Cache { dir: "x".repeat(50_000), ..Cache::default() },
        pulls: Vec::new(),
        last_used: None,
        settings: Settings::default(),
        task: None,
        prefetch: Prefetch::default(),
        docker_drift: None,
        docker_set_up: false,
        allowances: Vec::new(),
        private: crate::api::PrivateImages::default(),
    }
}

struct Fake {
    snapshots: watch::Sender<Arc<Snapshot>>,
    calls: AtomicUsize,
    /// `Command::Doctor` says it has begun, then waits to be let go.
    begun: Notify,
    released: Notify,
}

impl Handler for Fake {
    fn call(&self, command: Command) -> BoxFuture<'_, Reply> {
        async move {
            self.calls.fetch_add(1, Ordering::SeqCst);
            if command == Command::Doctor {
                self.begun.notify_one();
                self.released.notified().await;
                return Reply::Doctor(Vec::new());
            }
            if command == Command::Images { Reply::Images(Vec::new()) } else { Reply::Done }
        }
        .boxed()
    }

    fn snapshots(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshots.subscribe()
    }
}

struct Running {
    dir: tempfile::TempDir,
    fake: Arc<Fake>,
    shutdown: CancellationToken,
    serving: JoinSet<()>,
}

impl Running {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let fake = Arc::new(Fake {
            snapshots: watch::Sender::new(Arc::new(snapshot(1))),
            calls: AtomicUsize::new(0),
            begun: Notify::new(),
            released: Notify::new(),
        });
        let shutdown = CancellationToken::new();
        let socket = ControlSocket::open(dir.path()).unwrap();
        let mut serving = JoinSet::new();
        serving.spawn(socket.serve(Arc::clone(&fake) as Arc<dyn Handler>, shutdown.clone()));
        Self { dir, fake, shutdown, serving }
    }

    async fn client(&self) -> Client {
        Client::connect(self.dir.path()).await.unwrap()
    }

    /// A connection that speaks bytes, for what [`Client`] would never say.
    async fn raw(&self) -> BufReader<UnixStream> {
        BufReader::new(UnixStream::connect(self.dir.path().join("sampan.sock")).await.unwrap())
    }
}

async fn reply(raw: &mut BufReader<UnixStream>) -> Reply {
    let mut line = String::new();
    raw.read_line(&mut line).await.unwrap();
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line:?} is a reply: {error}"))
}

fn is_refusal(reply: &Reply) -> bool {
    matches!(reply, Reply::Error(error) if error.code == Code::InvalidRequest && error.next_step.is_some())
}

#[tokio::test]
async fn commands_are_answered_one_after_the_other() {
    let sampan = Running::start();
    let mut client = sampan.client().await;
    assert_eq!(client.call(Command::Images).await.unwrap(), Reply::Images(Vec::new()));
    assert_eq!(client.call(Command::Resume).await.unwrap(), Reply::Done);
    assert_eq!(sampan.fake.calls.load(Ordering::SeqCst), 2, "each command reached the handler once");
}

#[tokio::test]
async fn clients_do_not_wait_for_each_other() {
    let sampan = Running::start();
    let mut slow = sampan.client().await;
    let mut waiting = JoinSet::new();
    waiting.spawn(async move { slow.call(Command::Doctor).await });
    sampan.fake.begun.notified().await;
    for _ in 0..10 {
        let mut other = sampan.client().await;
        assert_eq!(
            other.call(Command::Resume).await.unwrap(),
            Reply::Done,
            "one slow command holds up nobody"
        );
    }
    sampan.fake.released.notify_one();
    assert_eq!(waiting.join_next().await.unwrap().unwrap().unwrap(), Reply::Doctor(Vec::new()));
}

#[tokio::test]
async fn a_watcher_sees_the_state_now_and_each_later_one() {
    let sampan = Running::start();
    let mut stream = sampan.client().await.watch().await.unwrap();
    assert_eq!(stream.next().await.unwrap().sequence, 1, "the state comes before any change");
    for sequence in 2..5 {
        sampan.fake.snapshots.send_replace(Arc::new(snapshot(sequence)));
        assert_eq!(stream.next().await.unwrap().sequence, sequence);
    }
}

#[tokio::test]
async fn a_slow_watcher_gets_the_newest_state_and_never_a_queue() {
    let sampan = Running::start();
    let mut stream = sampan.client().await.watch().await.unwrap();
    assert_eq!(stream.next().await.unwrap().sequence, 1);
    let last = 500;
    for sequence in 2..=last {
        sampan.fake.snapshots.send_replace(Arc::new(snapshot(sequence)));
        tokio::task::yield_now().await;
    }
    let mut received = 0;
    loop {
        received += 1;
        if stream.next().await.unwrap().sequence == last {
            break;
        }
    }
    // What the system's own socket buffers hold is beyond our reach; 50 kB snapshots fill them within a few.
    assert!(received < 50, "{received} of {last} states were sent to a reader who was away");
}

#[tokio::test]
async fn a_watcher_that_leaves_is_let_go() {
    let sampan = Running::start();
    let stream = sampan.client().await.watch().await.unwrap();
    while sampan.fake.snapshots.receiver_count() == 0 {
        tokio::task::yield_now().await;
    }
    drop(stream);
    while sampan.fake.snapshots.receiver_count() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_is_not_a_command_is_refused_and_the_next_one_answered() {
    let sampan = Running::start();
    let garbage: [&[u8]; 9] = [
        b"hello\n",
        b"\n",
        b"{}\n",
        b"[]\n",
        b"{\"call\":\"reboot\"}\n",
        b"{\"call\":\"pause\",\"seconds\":1,\"force\":true}\n",
        b"{\"call\":\"savings\",\"days\":-1}\n",
        b"\xff\xfe\x00\n",
        b"{\"call\":\"resume\"} {\"call\":\"resume\"}\n",
    ];
    let mut raw = sampan.raw().await;
    for line in garbage {
        raw.write_all(line).await.unwrap();
        let refused = reply(&mut raw).await;
        assert!(is_refusal(&refused), "{:?} gave {refused:?}", String::from_utf8_lossy(line));
    }
    raw.write_all(b"{\"call\":\"images\"}\n").await.unwrap();
    assert_eq!(reply(&mut raw).await, Reply::Images(Vec::new()), "the connection is still good");
    assert_eq!(sampan.fake.calls.load(Ordering::SeqCst), 1, "no garbage reached the handler");
}

#[tokio::test]
async fn deep_nesting_is_refused_without_harm() {
    let sampan = Running::start();
    let mut raw = sampan.raw().await;
    let mut line = vec![b'['; 60_000];
    line.push(b'\n');
    raw.write_all(&line).await.unwrap();
    assert!(is_refusal(&reply(&mut raw).await));
}

#[tokio::test]
async fn a_line_that_is_too_long_is_refused_and_ends_the_connection() {
    let sampan = Running::start();
    let names = vec!["a".repeat(100); 1000];
    let command = Command::Clear { selection: ClearSelection::Images { names }, immediate: true };
    let mut line = serde_json::to_vec(&command).unwrap();
    assert!(line.len() > COMMAND_BYTES_MAX);
    line.push(b'\n');
    let mut raw = sampan.raw().await;
    // The server may close while the rest is still on its way.
    let _ = raw.write_all(&line).await;
    assert!(is_refusal(&reply(&mut raw).await));
    let mut rest = Vec::new();
    let _ = raw.read_to_end(&mut rest).await;
    assert!(rest.is_empty(), "the tail of a long line is never taken for a command");
    assert_eq!(sampan.fake.calls.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn the_longest_line_that_is_allowed_is_answered() {
    let sampan = Running::start();
    let mut raw = sampan.raw().await;
    let mut line = b"{\"call\":\"images\"}".to_vec();
    line.resize(COMMAND_BYTES_MAX - 1, b' ');
    line.push(b'\n');
    raw.write_all(&line).await.unwrap();
    assert_eq!(reply(&mut raw).await, Reply::Images(Vec::new()));
}

#[tokio::test]
async fn one_connection_too_many_is_told_so() {
    let sampan = Running::start();
    let mut held = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        let mut client = sampan.client().await;
        client.call(Command::Resume).await.unwrap();
        held.push(client);
    }
    assert!(is_refusal(&reply(&mut sampan.raw().await).await));
    drop(held);
    loop {
        let mut client = sampan.client().await;
        // The places come free as the server notices that their holders left.
        if matches!(client.call(Command::Resume).await, Ok(Reply::Done)) {
            break;
        }
    }
}

#[tokio::test]
async fn a_command_under_way_is_finished_before_the_end() {
    let mut sampan = Running::start();
    let mut client = sampan.client().await;
    let mut watcher = sampan.client().await.watch().await.unwrap();
    watcher.next().await.unwrap();
    let mut waiting = JoinSet::new();
    waiting.spawn(async move { client.call(Command::Doctor).await });
    sampan.fake.begun.notified().await;
    sampan.shutdown.cancel();
    assert!(watcher.next().await.is_none(), "a watcher is let go at once");
    sampan.fake.released.notify_one();
    assert_eq!(waiting.join_next().await.unwrap().unwrap().unwrap(), Reply::Doctor(Vec::new()));
    sampan.serving.join_next().await.unwrap().unwrap();
    assert!(!sampan.dir.path().join("sampan.sock").exists(), "the socket goes with its server");
    let gone = Client::connect(sampan.dir.path()).await;
    assert!(matches!(gone, Err(ClientError::NotRunning { .. })));
}

#[tokio::test]
async fn asking_nobody_says_that_nobody_is_there_and_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let Err(error) = Client::connect(&dir.path().join("none")).await else { panic!("nobody is there") };
    assert!(matches!(error, ClientError::NotRunning { .. }));
    assert!(error.to_string().contains("sampan serve"), "{error}");
}

#[tokio::test]
async fn only_its_owner_may_connect() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("a").join("state");
    let _socket = ControlSocket::open(&state).unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().mode() & 0o777;
    assert_eq!(mode(&state), 0o700, "the folder");
    assert_eq!(mode(&state.join("sampan.sock")), 0o600, "the socket");
}

#[tokio::test]
async fn an_empty_folder_is_made_private_and_a_shared_one_refused() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let widen = |mode| std::fs::set_permissions(&state, std::fs::Permissions::from_mode(mode)).unwrap();
    std::fs::create_dir(&state).unwrap();
    widen(0o777);
    drop(ControlSocket::open(&state).unwrap());
    assert_eq!(
        std::fs::metadata(&state).unwrap().mode() & 0o777,
        0o700,
        "an empty folder becomes Sampan's own"
    );
    std::fs::write(state.join("somebody's"), "").unwrap();
    widen(0o777);
    let refused = ControlSocket::open(&state);
    assert!(
        matches!(refused, Err(SocketError::NotPrivate { .. })),
        "others could replace the socket: {refused:?}"
    );
    assert_eq!(
        std::fs::metadata(&state).unwrap().mode() & 0o777,
        0o777,
        "a folder that others use stays as it is"
    );
}

#[tokio::test]
async fn a_second_sampan_is_refused_and_the_first_goes_on() {
    let sampan = Running::start();
    let second = ControlSocket::open(sampan.dir.path());
    assert!(matches!(second, Err(SocketError::AlreadyRunning { .. })), "{second:?}");
    assert_eq!(sampan.client().await.call(Command::Resume).await.unwrap(), Reply::Done);
}

#[tokio::test]
async fn the_socket_of_a_dead_process_is_replaced_but_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sampan.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "a killed process leaves its socket");
    drop(ControlSocket::open(dir.path()).unwrap());

    let alive = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let refused = ControlSocket::open(dir.path());
    assert!(matches!(refused, Err(SocketError::AlreadyRunning { .. })), "it answers: {refused:?}");
    drop(alive);

    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "precious").unwrap();
    assert!(ControlSocket::open(dir.path()).is_err(), "a file is not a socket");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}

#[tokio::test]
async fn a_path_that_is_too_long_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("d".repeat(100));
    let error = ControlSocket::open(&state).unwrap_err();
    assert!(matches!(error, SocketError::PathTooLong { .. }), "{error}");
    assert!(error.to_string().contains("--state-dir"), "{error}");
    assert!(!state.exists(), "nothing is made for a path that cannot work");
}
