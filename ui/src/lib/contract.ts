// Generated from Rust (src-tauri/crates/sampan-app/src/api.rs). Do not edit: run
// `UPDATE_CONTRACT=1 cargo test -p sampan-app contract` after changing the Rust side.
//
// All sizes are bytes, all times milliseconds since 1970-01-01 UTC, all rates bytes per second, unless a name says
// otherwise.

/** The closed reasons of [`ApiError`]; each has texts in `ui/i18n` under `error.<code>`. */
export type Code = "invalid_request" | "docker_not_found" | "docker_unsupported" | "config_invalid" | "plan_outdated" | "not_permitted" | "rolled_back" | "store" | "no_desktop" | "internal";

/** Why a command failed. Programs match `code`, people read `message` and do `next_step`. */
export type ApiError = {
  /** The closed reason. */
  code: Code,
  /** What happened, one English sentence. */
  message: string,
  /** What to do now, one English sentence. */
  next_step: string | null, };

/** How an engine is told of a change. */
export type ApplyMethod = "nothing" | "reload" | "restart";

/** Why new blobs are not kept. */
export type NotKeeping = "disk_full" | "read_only" | "paused";

/** What is on disk. */
export type Cache = {
  /** The cache folder. */
  dir: string,
  /** Bytes of all published blobs and manifests. */
  size_bytes: number,
  /** Bytes of downloads not finished yet. */
  partial_bytes: number,
  /** Published blobs and manifests. */
  blobs: number,
  /** Free bytes on that disk. */
  free_bytes: number | null,
  /** Why new blobs are not kept at present, if so. */
  not_keeping: NotKeeping | null, };

/** How a checked thing is. */
export type CheckStatus = "good" | "warning" | "bad";

/** One thing `doctor` looked at. */
export type Check = {
  /** What was looked at: `port`, `cache folder`, `upstream docker.io`, `docker`. */
  name: string,
  /** How it is. */
  status: CheckStatus,
  /** What was seen. */
  detail: string,
  /** What to do, where something is wrong. */
  next_step: string | null, };

/** An image in the cache: one tag, or a manifest held without a tag. */
export type Image = {
  /** `docker.io/library/nginx`. */
  image: string,
  /** The tag; `None`: only pulled by digest. */
  tag: string | null,
  /** What the tag points at. */
  digest: string,
  /** Platforms whose image manifest is held: `linux/amd64`. */
  platforms: Array<string>,
  /** Bytes of everything of it that is held, each blob once. */
  size_bytes: number,
  /** Bytes of those that nothing else in the cache uses: what deleting it frees. */
  own_bytes: number,
  /** When it was first held. */
  created: number,
  /** When it was last asked for. */
  last_used: number, };

/** What clearing removes, or removed. */
export type ClearReport = {
  /** The images. */
  images: Array<Image>,
  /** Blobs and manifests that go with them (those other images use stay). */
  blobs: number,
  /** Bytes really freed. */
  freed_bytes: number, };

/** What to clear. */
export type ClearSelection = { "kind": "all" } | { "kind": "images",
  /** The images. */
  names: Array<string>, } | { "kind": "unused_for",
  /** At least 1. */
  days: number, };

/** Which way to change Docker's configuration. */
export type DockerAction = "enable" | "disable";

/** A new speed limit. */
export type SpeedLimit = "off" | { "bytes_per_second": number };

/** The look of the window. */
export type Theme = "system" | "light" | "dark";

/** New values for [`Settings`]; `None` leaves one as it is. */
export type SettingsChange = {
  /** `en`, `vi`, or `system`. */
  language: string | null,
  /** The look. */
  theme: Theme | null,
  /** The speed limit, or that there shall be none. */
  speed_limit: SpeedLimit | null, };

/** One question to a running Sampan. Read-only unless its description says what it changes. */
export type Command = { "call": "snapshot" } | { "call": "watch" } | { "call": "savings",
  /** 1 to 366. */
  days: number, } | { "call": "history",
  /** 1 to 1000. */
  limit: number, } | { "call": "images" } | { "call": "clear_preview",
  /** What to clear. */
  selection: ClearSelection, } | { "call": "clear",
  /** What to clear. */
  selection: ClearSelection, } | { "call": "pause",
  /** Resume by itself after this many seconds; `None`: when told. */
  seconds: number | null, } | { "call": "resume" } | { "call": "docker" } | { "call": "docker_plan",
  /** Which way. */
  action: DockerAction, } | { "call": "docker_apply",
  /** [`DockerPlan::id`] of the plan the person consented to. */
  plan: string,
  /** The second consent: the engine may be restarted, which stops the containers the plan names. */
  restart: boolean, } | { "call": "docker_prove" } | { "call": "doctor" } | { "call": "configure",
  /** The new values; absent ones stay. */
  change: SettingsChange, } | { "call": "open_window" };

/** Sums over some requests. `saved = served − fetched` and may be negative. */
export type Totals = {
  /** Manifest and blob requests answered. */
  requests: number,
  /** Those answered without the body crossing the link. */
  hits: number,
  /** Those that failed. */
  failures: number,
  /** Body bytes handed to clients. */
  served_bytes: number,
  /** Body bytes received from upstreams. */
  fetched_bytes: number,
  /** Body bytes handed to clients by hits. */
  hit_bytes: number,
  /** `served_bytes − fetched_bytes`. */
  saved_bytes: number, };

/** The numbers of one local day. */
export type DayTotals = {
  /** `2026-11-20`. */
  day: string,
  /** The numbers. */
  totals: Totals, };

/** What happens to a line. */
export type DiffKind = "same" | "added" | "removed";

/** One line of a difference. */
export type DiffLine = {
  /** Whether it stays, is added or removed. */
  kind: DiffKind,
  /** The line without its newline. */
  text: string, };

/** The engine the current Docker context means, and whether it uses Sampan. From evidence, which is shown. */
export type Docker = {
  /** Whether an engine answered. */
  found: boolean,
  /** `Docker Engine`, `Docker Desktop`, `Docker Engine (rootless)` … */
  engine: string,
  /** The engine's version. */
  version: string | null,
  /** Where it was reached: `unix:///var/run/docker.sock`. */
  endpoint: string,
  /** `classic` or `containerd`. */
  image_store: string | null,
  /** The configuration file the engine reads. */
  config_file: string | null,
  /** The mirrors the engine itself lists. */
  mirrors: Array<string>,
  /** Whether Sampan is among them (or its hosts.toml is in place). */
  enabled: boolean,
  /** Names of the running containers. */
  containers: Array<string>,
  /** Whether Sampan can set this engine up. */
  supported: boolean,
  /** Why not, or what to know; English sentences. */
  notes: Array<string>,
  /** What was looked at and seen, one line each: `socket /var/run/docker.sock answers as dockerd 28.5.2`. */
  evidence: Array<string>,
  /** When a container engine last asked Sampan for a manifest. */
  last_used: number | null, };

/** Whether Docker really asks Sampan. */
export type DockerProof = {
  /** Whether a manifest request of the probe pull arrived at Sampan. */
  arrived: boolean,
  /** Milliseconds from asking the engine to the request's arrival. */
  millis: number | null,
  /** One English sentence. */
  detail: string, };

/** What applying did. */
export type DockerApplied = {
  /** What was done, in order, one English sentence each. */
  steps: Array<string>,
  /** The engine afterwards. */
  docker: Docker,
  /** After enabling: the proof. */
  proof: DockerProof | null, };

/** One file of a plan. */
export type FileChange = {
  /** Its path. */
  path: string,
  /** Whether it does not exist yet. */
  created: boolean,
  /** Whether it is removed. */
  removed: boolean,
  /** The difference, lines for showing. */
  diff: Array<DiffLine>, };

/** Exactly what will be changed, before it is. */
export type DockerPlan = {
  /** Names this plan; apply takes it. A hash of everything the plan was based on. */
  id: string,
  /** Which way. */
  action: DockerAction,
  /** The files, in the order they are written. Empty: nothing to do. */
  files: Array<FileChange>,
  /** How the engine is told. */
  apply: ApplyMethod,
  /** Containers that a restart would stop; empty where nothing restarts. */
  stops: Array<string>,
  /** Whether an administrator prompt will appear. */
  needs_elevation: boolean,
  /** The same by hand, one shell command a line. */
  commands: Array<string>,
  /** What else happens, and what does not: English sentences. */
  notes: Array<string>, };

/** The numbers of one image. */
export type ImageTotals = {
  /** `docker.io/library/nginx`. */
  image: string,
  /** The numbers. */
  totals: Totals, };

/** Where a layer's bytes come from. */
export type LayerSource = "waiting" | "disk" | "joined" | "upstream";

/** One part of an image. */
export type Layer = {
  /** Its digest. */
  digest: string,
  /** Its size. */
  size_bytes: number,
  /** Bytes of it delivered. */
  done_bytes: number,
  /** Where its bytes come from. */
  source: LayerSource, };

/** The tray's state. Each has a shape of its own, never a colour alone. */
export type MirrorState = "serving" | "working" | "paused" | "attention";

/** A registry behind the mirror. */
export type Upstream = {
  /** Its name in image names: `docker.io`. */
  registry: string,
  /** Where it is asked. */
  url: string,
  /** The last contact: `true` it answered, `false` it did not, `None` it was not asked yet. */
  reachable: boolean | null,
  /** When that was. */
  checked: number | null, };

/** The mirror's own state. */
export type Mirror = {
  /** Sampan's version. */
  version: string,
  /** The address engines are pointed at: `127.0.0.1:7267`. */
  listen: string,
  /** When this run began. */
  started: number,
  /** What it is doing. */
  state: MirrorState,
  /** When a pause ends by itself. */
  paused_until: number | null,
  /** The registries it mirrors. */
  upstreams: Array<Upstream>, };

/** How a pull goes, or went. */
export type PullState = "active" | "complete" | "interrupted" | "failed";

/** One pull of one image: several requests, possibly by several clients, that belong together. */
export type Pull = {
  /** Unique and growing, across runs. */
  id: number,
  /** `docker.io/library/nginx`. */
  image: string,
  /** What was asked for: a tag, or a digest. */
  reference: string,
  /** When it began. */
  started: number,
  /** When its last byte left; `None` while it goes on. */
  ended: number | null,
  /** How it goes, or went. */
  state: PullState,
  /** Whether the tag was served from the cache because the upstream could not be asked. */
  stale: boolean,
  /** Bytes of all layers and the configuration; `None` until the manifest is known. Shown as "≥" until then. */
  size_bytes: number | null,
  /** Bytes of them delivered to the client (layers the client already had are not asked for and not in here). */
  done_bytes: number,
  /** Body bytes that crossed the link for this pull. */
  fetched_bytes: number,
  /** Speed towards the client over the last 20 s, while it goes on. */
  rate: number | null,
  /** Seconds left at that speed; only once the size is known. */
  eta_seconds: number | null,
  /** Connections its downloads use now; 0 when it ended. Pulls that wait for the same layer share them. */
  connections: number,
  /** Requests for its layers that had to be asked again before a byte came. */
  retries: number,
  /** Downloads of its layers that broke off in the middle and went on without a byte lost. */
  repaired: number,
  /** Nothing comes from the upstream for one of its downloads, which waits for it to come back; not when it ended. */
  waiting: boolean,
  /** The parts, configuration first, then layers in manifest order. Those not asked for yet are `waiting`. */
  layers: Array<Layer>,
  /** The client, from its User-Agent: `docker`, `buildkit`, `containerd`, `containers` (podman, buildah), `skopeo`, or
   * its first word. */
  client: string, };

/** Savings over some days. */
export type Savings = {
  /** The sums over all of `days`. */
  total: Totals,
  /** One entry a local day, oldest first, days without requests included. */
  days: Array<DayTotals>,
  /** One entry an image, most saved first. */
  images: Array<ImageTotals>, };

/** The settings a person may change while Sampan runs. */
export type Settings = {
  /** `en`, `vi`, or `None`: as the system. */
  language: string | null,
  /** The look. */
  theme: Theme,
  /** Bytes per second that all downloads share, at least [`SPEED_LIMIT_MIN`]; `None`: as fast as they come. */
  speed_limit: number | null, };

/** Everything the first screen shows, at one moment. */
export type Snapshot = {
  /** Grows with each snapshot of one run. */
  sequence: number,
  /** When it was taken. */
  at: number,
  /** The mirror itself. */
  mirror: Mirror,
  /** Today's numbers, local day. */
  today: Totals,
  /** What is on disk. */
  cache: Cache,
  /** Pulls going on now and those that ended within the last minute, newest first, at most 50. */
  pulls: Array<Pull>,
  /** When a container engine last asked for a manifest; `None`: never, as far as is recorded. */
  last_used: number | null,
  /** The settings that can be changed. */
  settings: Settings, };

/** An answer to a [`Command`]. */
export type Reply = { "reply": "snapshot", "value": Snapshot } | { "reply": "savings", "value": Savings } | { "reply": "history", "value": Array<Pull> } | { "reply": "images", "value": Array<Image> } | { "reply": "clear_preview", "value": ClearReport } | { "reply": "cleared", "value": ClearReport } | { "reply": "docker", "value": Docker } | { "reply": "docker_plan", "value": DockerPlan } | { "reply": "docker_applied", "value": DockerApplied } | { "reply": "docker_proof", "value": DockerProof } | { "reply": "doctor", "value": Array<Check> } | { "reply": "done" } | { "reply": "error", "value": ApiError };

/** What the window is told while it watches: the newest state, or that the connection to Sampan is lost for now. */
export type WatchMessage = { "kind": "snapshot", "value": Snapshot } | { "kind": "lost" };
