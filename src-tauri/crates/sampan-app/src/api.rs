//! The contract: what the window, the CLI and tests may ask, and what they get. TypeScript types are generated from here.
//!
//! All sizes are bytes, all times milliseconds since 1970-01-01 UTC, all rates bytes per second, unless a name says
//! otherwise. Numbers are `f64`-safe integers: no cache holds 2^53 bytes.

mod allowance;
mod cache;
mod carry;
mod clients;
mod docker;
mod freshness;
mod health;
mod prefetch;
mod private;
mod refusal;
mod settings;
mod upstreams;

use serde::{Deserialize, Serialize};
use ts_rs::TS;

pub use allowance::{Allowance, SpentBy};
pub use cache::{
    AGE_LIMIT_DAYS_MAX, AgeLimit, Cache, ClearReport, ClearSelection, Image, ImageBlob, ImageDetails,
    NotKeeping, QUOTA_MAX, QUOTA_MIN, Quota, TagDigest, Verify,
};
pub use carry::{Exported, Imported, Skipped, Task, TaskKind};
pub use clients::{ClientApplied, ClientSetup};
pub use docker::{
    ApplyMethod, DiffKind, DiffLine, Docker, DockerAction, DockerApplied, DockerBuilder, DockerDrift,
    DockerPlan, DockerProof, DockerRegistry, EngineFound, FileChange,
};
pub use freshness::{
    FRESHNESS_RULES_MAX, FRESHNESS_SECONDS_MAX, Freshness, FreshnessChange, FreshnessRule, RefreshResult,
    Refreshed, StaleReason, TagAnswers, age, parse_age,
};
pub use health::{Damage, Health, HealthReport, ScrubRun, ScrubState};
pub use prefetch::{
    Kept, Metered, OfflineCheck, OfflineImage, OfflinePart, OfflineProblem, Prefetch, PrefetchChange,
    PrefetchItem, PrefetchJob, PrefetchJobState, PrefetchWait, QuietChange, QuietHours,
};
pub use private::{LoginKind, PrivateImages, PrivateProblem, PrivateRule, PrivateSeen, WhyPrivate};
pub use refusal::{ApiError, Code};
pub use settings::{SPEED_LIMIT_MAX, SPEED_LIMIT_MIN, Settings, SettingsChange, SpeedLimit, Theme};
pub use upstreams::{
    RegistryUpstreams, UpstreamChange, UpstreamDropped, UpstreamLie, UpstreamState, UpstreamWeather,
};

/// One question to a running Sampan. Read-only unless its description says what it changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, TS)]
#[serde(tag = "call", rename_all = "snake_case", deny_unknown_fields)]
pub enum Command {
    /// The state now: answered with [`Reply::Snapshot`].
    Snapshot,
    /// The state now and again after each change, coalesced to at most four a second: many [`Reply::Snapshot`].
    Watch,
    /// Savings by day and by image over the last `days` local days, today included: [`Reply::Savings`].
    Savings {
        /// 1 to 366.
        days: u32,
    },
    /// Past pulls, newest first: [`Reply::History`].
    History {
        /// 1 to 1000.
        limit: u32,
    },
    /// What is in the cache: [`Reply::Images`].
    Images,
    /// What clearing would remove; changes nothing: [`Reply::ClearPreview`].
    ClearPreview {
        /// What to clear.
        selection: ClearSelection,
    },
    /// Removes it: [`Reply::Cleared`]. Exactly one image is only hidden at first, and can be brought back for 10 s.
    Clear {
        /// What to clear.
        selection: ClearSelection,
        /// Removes one image at once too, with no way back.
        #[serde(default)]
        immediate: bool,
    },
    /// Brings a cleared image back: [`Reply::Done`], or [`Code::NotHeld`] if it is too late.
    ClearUndo {
        /// [`ClearReport::undo`]; `None`: the one cleared last.
        #[serde(default)]
        #[ts(type = "number | null")]
        id: Option<u64>,
    },
    /// Keeps an image whatever the quota and the age limit say, or no longer: [`Reply::Done`], or [`Code::NotHeld`].
    Pin {
        /// As in [`ClearSelection::Images`]; without a tag or digest: every tag held of it.
        name: String,
        /// Whether it shall be kept.
        pinned: bool,
    },
    /// Asks the registry now where tags point, whatever their policy says: [`Reply::Refreshed`], or [`Code::NotHeld`].
    Refresh {
        /// As in [`ClearSelection::Images`], without a digest; without a tag: every tag held of it.
        name: String,
    },
    /// Holds a tag fast where it points, whatever its registry says, or lets it move again: [`Reply::Done`], or
    /// [`Code::NotHeld`].
    Freeze {
        /// `nginx:1.27`, or `nginx:1.27@sha256:…` for an earlier digest that is held.
        name: String,
        /// Whether it shall stay.
        frozen: bool,
    },
    /// What the images of this name are made of: [`Reply::ImageDetails`], or [`Code::NotHeld`].
    ImageDetails {
        /// As in [`ClearSelection::Images`]; without a tag or digest: every tag held of it.
        name: String,
    },
    /// Begins to read the whole cache again and to compare it with its digests, or stops that: [`Reply::Done`] at once.
    /// How it goes is in [`Cache::scrub`], what it found in [`HealthReport::last_run`].
    Scrub {
        /// Begin, or stop. Beginning what runs already, and stopping what does not, does nothing; one that Sampan began by
        /// itself makes way.
        start: bool,
    },
    /// What damage was found in the cache, and what became of it: [`Reply::Health`].
    Health,
    /// Writes images to a file or folder that others can read, an OCI image layout: [`Reply::Exported`] at its end, or
    /// [`Code::Busy`]. How it goes is in [`Snapshot::task`].
    Export {
        /// The images, as in [`ClearSelection::Images`].
        names: Vec<String>,
        /// An absolute path: ending in `.tar` it becomes one file, else a folder.
        path: String,
    },
    /// Takes images in from such a file or folder: [`Reply::Imported`] at its end, or [`Code::Busy`]. Every byte is
    /// compared with its digest.
    Import {
        /// An absolute path.
        path: String,
        /// Whether the names in it are taken as proof that these registries show these images. Else an upstream must
        /// confirm each image before it is served.
        trust_names: bool,
        /// What the image is called, with its tag, for a file or folder of one image that does not say it itself.
        #[serde(default)]
        name: Option<String>,
    },
    /// Stops the export or import that runs, if one does: [`Reply::Done`].
    StopTask,
    /// Changes what is fetched ahead or kept fresh: [`Reply::Prefetching`] to an addition, else [`Reply::Done`], or
    /// [`Code::NotHeld`]. How it goes is in [`Snapshot::prefetch`].
    Prefetch {
        /// What to do.
        change: PrefetchChange,
    },
    /// Looks whether an image can be pulled with the network off, and hashes all of it: [`Reply::Offline`].
    VerifyOffline {
        /// An image, as people write it.
        name: String,
        /// As in [`PrefetchItem::platform`].
        #[serde(default)]
        platform: Option<String>,
    },
    /// Passes misses through without keeping them, until told otherwise: [`Reply::Done`].
    Pause {
        /// Resume by itself after this many seconds; `None`: when told.
        seconds: Option<u32>,
    },
    /// Ends a pause: [`Reply::Done`].
    Resume,
    /// Looks for Docker and says what it finds: [`Reply::Docker`].
    Docker,
    /// Looks for every container engine of this machine: [`Reply::Engines`].
    Engines,
    /// What enabling or disabling would change; changes nothing: [`Reply::DockerPlan`].
    DockerPlan {
        /// Which way.
        action: DockerAction,
        /// The registries to set up besides Docker Hub, which always is; Sampan's files for others are removed. `None`:
        /// those that are set up now. Disabling takes back all of them, whatever is said here.
        #[serde(default)]
        registries: Option<Vec<String>>,
        /// Whether the engine shall restart where it need only read its configuration again: the plan then names the
        /// containers that stop, and [`Command::DockerApply`] needs the second consent. Refused with the commands where
        /// nothing can restart it.
        #[serde(default)]
        restart: bool,
    },
    /// Carries out a plan that was shown: refused if anything it was based on has changed: [`Reply::DockerApplied`].
    DockerApply {
        /// [`DockerPlan::id`] of the plan the person consented to.
        plan: String,
        /// The second consent: the engine may be restarted, which stops the containers the plan names.
        restart: bool,
    },
    /// Leaves what somebody else changed as it is: it is not told again until the files change: [`Reply::Done`].
    DockerLeave,
    /// Has Docker pull a tiny image made by Sampan itself and watches it arrive: [`Reply::DockerProof`].
    DockerProve,
    /// Looks for other programs that pull images: [`Reply::Clients`].
    Clients,
    /// What setting one of them up, or taking that back, would change; changes nothing: [`Reply::DockerPlan`].
    ClientPlan {
        /// [`ClientSetup::id`].
        client: String,
        /// Which way.
        action: DockerAction,
        /// As in [`Command::DockerPlan`].
        #[serde(default)]
        registries: Option<Vec<String>>,
    },
    /// Carries out a plan that was shown, where [`ClientSetup::can_apply`]: [`Reply::ClientApplied`].
    ClientApply {
        /// [`DockerPlan::id`] of the plan the person consented to.
        plan: String,
    },
    /// Who is asked for each registry, and how they do: [`Reply::Upstreams`].
    Upstreams,
    /// Changes who is asked for a registry: [`Reply::Upstreams`].
    UpstreamChange {
        /// What to do with it.
        change: UpstreamChange,
        /// As in [`RegistryUpstreams::registry`].
        registry: String,
        /// As in [`UpstreamWeather::url`].
        url: String,
    },
    /// Checks everything that can be wrong: [`Reply::Doctor`].
    Doctor,
    /// Changes settings a person may change while Sampan runs: [`Reply::Done`].
    Configure {
        /// The new values; absent ones stay.
        change: SettingsChange,
    },
    /// Lets Sampan fetch private images with a login, or changes with which: [`Reply::PrivateAllowed`].
    PrivateAllow {
        /// `ghcr.io/acme/app`, or `ghcr.io/acme/*` with everything below.
        pattern: String,
        /// Which login.
        #[serde(default)]
        login: LoginKind,
        /// The host of a token server that is not the registry's own, of the same domain.
        #[serde(default)]
        realm: Option<String>,
    },
    /// Takes such a permission back: [`Reply::Done`], or [`Code::NotHeld`]. What was fetched by it is answered no longer.
    PrivateRemove {
        /// [`PrivateRule::pattern`].
        pattern: String,
    },
    /// Looks for every login again, and lets those that failed be tried at once: [`Reply::Done`].
    PrivateRetry,
    /// Brings the window to the front, or opens it; an error where there is no desktop: [`Reply::Done`].
    OpenWindow,
}

/// An answer to a [`Command`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, TS)]
#[serde(tag = "reply", content = "value", rename_all = "snake_case")]
pub enum Reply {
    /// To [`Command::Snapshot`] and [`Command::Watch`].
    Snapshot(Box<Snapshot>),
    /// To [`Command::Savings`].
    Savings(Savings),
    /// To [`Command::History`].
    History(Vec<Pull>),
    /// To [`Command::Images`].
    Images(Vec<Image>),
    /// To [`Command::ClearPreview`].
    ClearPreview(ClearReport),
    /// To [`Command::Clear`].
    Cleared(ClearReport),
    /// To [`Command::ImageDetails`].
    ImageDetails(Vec<ImageDetails>),
    /// To [`Command::Refresh`]: one a tag.
    Refreshed(Vec<Refreshed>),
    /// To [`Command::Health`].
    Health(HealthReport),
    /// To [`Command::Export`].
    Exported(Exported),
    /// To [`Command::Import`].
    Imported(Imported),
    /// To [`PrefetchChange::Add`]: the number of each image in the queue, in the order they were named.
    Prefetching(#[ts(type = "Array<number>")] Vec<u64>),
    /// To [`Command::VerifyOffline`].
    Offline(OfflineImage),
    /// To [`Command::Docker`].
    Docker(Docker),
    /// To [`Command::Engines`]: the current one first, then those that answer.
    Engines(Vec<EngineFound>),
    /// To [`Command::DockerPlan`] and [`Command::ClientPlan`].
    DockerPlan(DockerPlan),
    /// To [`Command::DockerApply`].
    DockerApplied(DockerApplied),
    /// To [`Command::DockerProve`].
    DockerProof(DockerProof),
    /// To [`Command::Clients`].
    Clients(Vec<ClientSetup>),
    /// To [`Command::ClientApply`].
    ClientApplied(ClientApplied),
    /// To [`Command::Upstreams`], and after a change of them: the registries by name.
    Upstreams(Vec<RegistryUpstreams>),
    /// To [`Command::Doctor`].
    Doctor(Vec<Check>),
    /// To [`Command::PrivateAllow`]: what is wrong with the login, if something is. The rule is in force all the same.
    PrivateAllowed(Option<PrivateProblem>),
    /// To commands that only change something.
    Done,
    /// The command failed; nothing was changed unless the message says so.
    Error(ApiError),
}
/// Everything the first screen shows, at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, TS)]
pub struct Snapshot {
    /// Grows with each snapshot of one run.
    #[ts(type = "number")]
    pub sequence: u64,
    /// When it was taken.
    #[ts(type = "number")]
    pub at: i64,
    /// The mirror itself.
    pub mirror: Mirror,
    /// Today's numbers, local day.
    pub today: Totals,
    /// What is on disk.
    pub cache: Cache,
    /// Pulls going on now and those that ended within the last minute, newest first, at most 50.
    pub pulls: Vec<Pull>,
    /// When a container engine last asked for a manifest; `None`: never, as far as is recorded.
    #[ts(type = "number | null")]
    pub last_used: Option<i64>,
    /// The settings that can be changed.
    pub settings: Settings,
    /// The export or import that goes on.
    #[serde(default)]
    pub task: Option<Task>,
    /// What is fetched ahead, and what is kept fresh.
    #[serde(default)]
    pub prefetch: Prefetch,
    /// What somebody else changed of Docker's set-up, as far as it was noticed and not left as it is.
    #[serde(default)]
    pub docker_drift: Option<DockerDrift>,
    /// Whether Docker asks Sampan, as it was seen last: there is something to take back.
    #[serde(default)]
    pub docker_set_up: bool,
    /// What registries that count pulls let this machine have, by name; empty where none told yet.
    #[serde(default)]
    pub allowances: Vec<Allowance>,
    /// What holds for private images.
    #[serde(default)]
    pub private: PrivateImages,
}

/// The mirror's own state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, TS)]
pub struct Mirror {
    /// Sampan's version.
    pub version: String,
    /// The address engines are pointed at: `127.0.0.1:7267`.
    pub listen: String,
    /// When this run began.
    #[ts(type = "number")]
    pub started: i64,
    /// What it is doing.
    pub state: MirrorState,
    /// When a pause ends by itself.
    #[ts(type = "number | null")]
    pub paused_until: Option<i64>,
    /// The registries it mirrors.
    pub upstreams: Vec<Upstream>,
    /// How answers about tags came about, since this run began.
    #[serde(default)]
    pub tag_answers: TagAnswers,
}

/// The tray's state. Each has a shape of its own, never a colour alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum MirrorState {
    /// Ready, nothing flows.
    Serving,
    /// At least one pull flows.
    Working,
    /// Misses pass through and are not kept.
    Paused,
    /// An upstream is unreachable, or the cache cannot be written: something a person should look at.
    Attention,
}

/// A registry behind the mirror.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, TS)]
pub struct Upstream {
    /// Its name in image names: `docker.io`.
    pub registry: String,
    /// Where it is asked.
    pub url: String,
    /// The last contact: `true` it answered, `false` it did not, `None` it was not asked yet.
    pub reachable: Option<bool>,
    /// When that was.
    #[ts(type = "number | null")]
    pub checked: Option<i64>,
    /// It did not answer several times in a row: it is left alone, but for a probe now and then.
    #[serde(default)]
    pub resting: bool,
    /// While it is left alone: from when on the next pull asks it again; `None` while it is being asked.
    #[serde(default)]
    #[ts(type = "number | null")]
    pub rests_until: Option<i64>,
}

/// Sums over some requests. `saved = served − fetched` and may be negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, TS)]
pub struct Totals {
    /// Manifest and blob requests answered.
    #[ts(type = "number")]
    pub requests: u64,
    /// Those answered without the body crossing the link.
    #[ts(type = "number")]
    pub hits: u64,
    /// Those that failed.
    #[ts(type = "number")]
    pub failures: u64,
    /// Body bytes handed to clients.
    #[ts(type = "number")]
    pub served_bytes: u64,
    /// Body bytes received from upstreams.
    #[ts(type = "number")]
    pub fetched_bytes: u64,
    /// Body bytes handed to clients by hits.
    #[ts(type = "number")]
    pub hit_bytes: u64,
    /// `served_bytes − fetched_bytes`.
    #[ts(type = "number")]
    pub saved_bytes: i64,
}

/// One pull of one image: several requests, possibly by several clients, that belong together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, TS)]
pub struct Pull {
    /// Unique and growing, across runs.
    #[ts(type = "number")]
    pub id: u64,
    /// `docker.io/library/nginx`.
    pub image: String,
    /// What was asked for: a tag, or a digest.
    pub reference: String,
    /// When it began.
    #[ts(type = "number")]
    pub started: i64,
    /// When its last byte left; `None` while it goes on.
    #[ts(type = "number | null")]
    pub ended: Option<i64>,
    /// How it goes, or went.
    pub state: PullState,
    /// Whether the tag was served from the cache because the upstream could not be asked.
    pub stale: bool,
    /// Why, where it was.
    #[serde(default)]
    pub stale_reason: Option<StaleReason>,
    /// Bytes of all layers and the configuration; `None` until the manifest is known. Shown as "≥" until then.
    #[ts(type = "number | null")]
    pub size_bytes: Option<u64>,
    /// Bytes of them delivered to the client (layers the client already had are not asked for and not in here).
    #[ts(type = "number")]
    pub done_bytes: u64,
    /// Body bytes that crossed the link for this pull.
    #[ts(type = "number")]
    pub fetched_bytes: u64,
    /// Speed towards the client over the last 20 s, while it goes on.
    #[ts(type = "number | null")]
    pub rate: Option<u64>,
    /// Seconds left at that speed; only once the size is known.
    #[ts(type = "number | null")]
    pub eta_seconds: Option<u64>,
    /// Connections its downloads use now; 0 when it ended. Pulls that wait for the same layer share them.
    pub connections: u32,
    /// Requests for its layers that had to be asked again before a byte came.
    #[ts(type = "number")]
    pub retries: u64,
    /// Downloads of its layers that broke off in the middle and went on without a byte lost.
    #[ts(type = "number")]
    pub repaired: u64,
    /// Nothing comes from the upstream for one of its downloads, which waits for it to come back; not when it ended.
    pub waiting: bool,
    /// The parts, configuration first, then layers in manifest order. Those not asked for yet are `waiting`.
    pub layers: Vec<Layer>,
    /// The client, from its User-Agent: `docker`, `buildkit`, `containerd`, `containers` (podman, buildah), `skopeo`, or
    /// its first word.
    pub client: String,
}

/// How a pull goes, or went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum PullState {
    /// Bytes flow, or flowed within the last three seconds.
    Active,
    /// Every part the client asked for was delivered to its end.
    Complete,
    /// The client left before the end of a part and did not come back for it.
    Interrupted,
    /// A part could not be delivered.
    Failed,
}

/// One part of an image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, TS)]
pub struct Layer {
    /// Its digest.
    pub digest: String,
    /// Its size.
    #[ts(type = "number")]
    pub size_bytes: u64,
    /// Bytes of it delivered.
    #[ts(type = "number")]
    pub done_bytes: u64,
    /// Where its bytes come from.
    pub source: LayerSource,
}

/// Where a layer's bytes come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum LayerSource {
    /// Not asked for (yet): the client may have it already.
    Waiting,
    /// This machine's disk.
    Disk,
    /// A download that another request started.
    Joined,
    /// The upstream.
    Upstream,
}

/// Savings over some days.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, TS)]
pub struct Savings {
    /// The sums over all of `days`.
    pub total: Totals,
    /// One entry a local day, oldest first, days without requests included.
    pub days: Vec<DayTotals>,
    /// One entry an image, most saved first.
    pub images: Vec<ImageTotals>,
}

/// The numbers of one local day.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, TS)]
pub struct DayTotals {
    /// `2026-11-20`.
    pub day: String,
    /// The numbers.
    pub totals: Totals,
}

/// The numbers of one image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, TS)]
pub struct ImageTotals {
    /// `docker.io/library/nginx`.
    pub image: String,
    /// The numbers.
    pub totals: Totals,
}

/// One thing `doctor` looked at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, TS)]
pub struct Check {
    /// What was looked at: `port`, `cache folder`, `upstream docker.io`, `docker`.
    pub name: String,
    /// How it is.
    pub status: CheckStatus,
    /// What was seen.
    pub detail: String,
    /// What to do, where something is wrong.
    pub next_step: Option<String>,
}

/// How a checked thing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum CheckStatus {
    /// As it should be.
    Good,
    /// Works, but worth knowing.
    Warning,
    /// Does not work.
    Bad,
}
