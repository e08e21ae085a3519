// Generated from Rust (src-tauri/crates/sampan-app/src/api.rs and api/). Do not edit: run
// `UPDATE_CONTRACT=1 cargo test -p sampan-app contract` after changing the Rust side.
//
// All sizes are bytes, all times milliseconds since 1970-01-01 UTC, all rates bytes per second, unless a name says
// otherwise.

/** The age limit. */
export type AgeLimit = "off" | { "days": number };

/** Pulls that one image cost. */
export type SpentBy = {
  /** `docker.io/library/nginx`. */
  image: string,
  /** Manifests fetched for it within one window. */
  count: number, };

/** What a registry lets this machine have, as its last answer told: Docker Hub's pull limit. */
export type Allowance = {
  /** Its name in image names: `docker.io`. */
  registry: string,
  /** Pulls in a window; `None`: it does not say. */
  limit: number | null,
  /** Pulls left; `None`: it does not say, or the window it said it of is over. */
  remaining: number | null,
  /** How long a window is. */
  window_seconds: number | null,
  /** Whom it counts: an address, shared with everybody behind it, or an account's name. */
  source: string | null,
  /** When it told that. */
  seen_at: number,
  /** When there will be more, at the latest: registries rarely say it exactly. */
  resets_at: number | null,
  /** It refused a pull and is not asked for another before then. */
  rests_until: number | null,
  /** So few are left that they are kept for what is not in the cache: a tag that moved is served as it is held. */
  is_low: boolean,
  /** When they are used up at the pace of Sampan's own pulls; `None`: not before the reset, or too few pulls to tell. */
  forecast: number | null,
  /** Pulls that Sampan itself made within one window. What else was counted, others behind the same source spent. */
  spent: number,
  /** The images those were for, most first, at most 20. */
  spent_by: Array<SpentBy>, };

/** The closed reasons of [`ApiError`]; each has texts in `ui/i18n` under `error.<code>`. */
export type Code = "invalid_request" | "docker_not_found" | "docker_unsupported" | "config_invalid" | "plan_outdated" | "not_permitted" | "rolled_back" | "upstream" | "store" | "not_held" | "busy" | "stopped" | "no_desktop" | "internal";

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

/** What damage was found in the cache, and what became of it. Counted since the cache exists. */
export type Health = {
  /** Blobs found damaged. */
  damaged: number,
  /** Those that were fetched again since. */
  healed: number,
  /** Those that the next pull fetches again. */
  waiting: number,
  /** Every byte was compared with its digest at this time or later; `None`: something never was, or nothing is held. */
  checked_since: number | null, };

/** Why new blobs are not kept. */
export type NotKeeping = "disk_full" | "quota_full" | "read_only" | "paused";

/** A scrub that goes on: the whole cache is read and compared with its digests. */
export type ScrubState = {
  /** Bytes read. */
  done_bytes: number,
  /** Bytes to be read. */
  total_bytes: number,
  /** Blobs found damaged. */
  damaged: number,
  /** Sampan began it by itself: it is slow, and yields to pulls. */
  background: boolean, };

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
  /** The part of them that Sampan leaves alone. */
  floor_bytes: number,
  /** Grows when the list of images changes by clearing, undoing, pinning or making room. */
  listed: number,
  /** Why new blobs are not kept at present, if so. */
  not_keeping: NotKeeping | null,
  /** The most bytes the cache may take, unfinished downloads, quarantine and its own books included; `None`: as many as
   * the disk has. */
  quota_bytes: number | null,
  /** Bytes that pinned images are made of. */
  pinned_bytes: number,
  /** Bytes of damaged blobs that are kept aside. */
  quarantine_bytes: number,
  /** Bytes of what is kept beside images: the index, `index.json`, the ledgers of unfinished downloads. */
  own_bytes: number,
  /** The network file system the folder is on (`NFS`, `SMB`, …), where locks and renames are not dependable; `None`: none
   * that is known. */
  network: string | null,
  /** What damage was found, and what became of it. */
  health: Health,
  /** The scrub that goes on. */
  scrub: ScrubState | null, };

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

/** A digest that a tag had. */
export type TagDigest = {
  /** The digest. */
  digest: string,
  /** When the tag was first seen with it. */
  first_seen: number,
  /** Whether its manifest is in the cache. */
  held: boolean, };

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
  last_used: number,
  /** Whether it is kept whatever the quota and the age limit say. */
  pinned: boolean,
  /** How many times its own manifest was answered from the cache. */
  hits: number,
  /** The part of `size_bytes` that came over the link, not by an import: what it cost. */
  fetched_bytes: number,
  /** The digests its tag had, newest first, at most 20; empty without a tag. */
  history: Array<TagDigest>,
  /** It was imported, and its registry has not confirmed it yet. */
  unconfirmed: boolean,
  /** The digest that a person froze the tag at. */
  frozen: string | null,
  /** When its registry said that it has no such tag any more: it is kept, and not answered. */
  gone: number | null, };

/** What clearing removes, or removed. */
export type ClearReport = {
  /** The images. */
  images: Array<Image>,
  /** Blobs and manifests that go with them (those other images use stay). */
  blobs: number,
  /** Bytes really freed. */
  freed_bytes: number,
  /** Bytes that would cross the link again if all of it were pulled again. */
  refetch_bytes: number,
  /** How long that would take by the speed of the last pulls; `None`: none was long enough to tell. */
  refetch_seconds: number | null,
  /** What [`Command::ClearUndo`](super::Command::ClearUndo) takes; `None`: there is no way back. */
  undo: number | null,
  /** Until when it can be brought back. */
  undo_until: number | null, };

/** What to clear. */
export type ClearSelection = { "kind": "all" } | { "kind": "images",
  /** The images. */
  names: Array<string>, } | { "kind": "unused_for",
  /** At least 1. */
  days: number, };

/** A program that pulls images by a configuration of its own, and whether it asks Sampan. From evidence, which is shown. */
export type ClientSetup = {
  /** `podman`, `buildkit`, `containerd`, `nerdctl`, `k3s` or `kind`. */
  id: string,
  /** Its name for people. */
  name: string,
  /** Whether it seems to be on this machine. */
  found: boolean,
  /** Whether it is set up to ask Sampan for Docker Hub. */
  enabled: boolean,
  /** The registries for which it is. */
  registries: Array<string>,
  /** Whether Sampan can change it. Else its plan is there to be copied. */
  can_apply: boolean,
  /** What to know; English sentences. */
  notes: Array<string>,
  /** What was looked at and seen, one line each. */
  evidence: Array<string>,
  /** The files that Sampan writes for it, or shows. */
  paths: Array<string>, };

/** What applying did. */
export type ClientApplied = {
  /** What was done, in order, one English sentence each. */
  steps: Array<string>,
  /** The client afterwards. */
  client: ClientSetup, };

/** Which way to change Docker's configuration. */
export type DockerAction = "enable" | "disable";

/** Where a login comes from. */
export type LoginKind = "docker" | "keyring";

/** An image to fetch ahead. */
export type PrefetchItem = {
  /** As people write it: `nginx`, `ghcr.io/owner/name:tag`, `nginx@sha256:…`. */
  name: string,
  /** `linux/arm64`; `all`; `None`: this machine's. */
  platform: string | null, };

/** A change of what is fetched ahead, or kept fresh. */
export type PrefetchChange = { "add": {
  /** 1 to 1000 images. */
  images: Array<PrefetchItem>,
  /** Whether they are pinned once they are there. */
  pin: boolean,
  /** Whether quiet hours and a metered link are no reason to wait. */
  now: boolean, } } | { "cancel": {
  /** [`PrefetchJob::id`]; `None`: all that have not ended. */
  id: number | null, } } | { "retry": {
  /** [`PrefetchJob::id`]. */
  id: number, } } | { "pause": {
  /** Stop, or go on. */
  paused: boolean, } } | { "keep": {
  /** An image with its tag, as people write it. */
  name: string,
  /** As in [`PrefetchItem::platform`]. */
  platform: string | null,
  /** From now on, or no longer. */
  keep: boolean, } };

/** How often a tag's registry is asked where it points. */
export type Freshness = "always" | { "every": number } | "on_request" | "never";

/** What holds for some repositories. */
export type FreshnessRule = {
  /** `docker.io/library/*`, `ghcr.io/acme/**`, `quay.io`, `nginx`; of several that fit, the closest decides. */
  pattern: string,
  /** How often. */
  check: Freshness,
  /** How many seconds after its last confirmation a tag is still answered while its registry cannot be asked, 1 to
   * [`FRESHNESS_SECONDS_MAX`]; `None`: for ever. */
  stale_max_seconds: number | null, };

/** A change of the rules. */
export type FreshnessChange = { "set": FreshnessRule } | { "unset": string };

/** Whether the link is paid for by the byte: then nothing is fetched that nobody waits for. */
export type Metered = "auto" | "on" | "off";

/** The hours of the day, local time, in which images are fetched ahead: a link that is needed by day is free at night. */
export type QuietHours = {
  /** When they begin, in minutes since midnight: 0 to 1439. */
  from: number,
  /** When they end. Before `from`: on the next day. The same as `from`: never. */
  to: number, };

/** New quiet hours. */
export type QuietChange = "off" | { "hours": QuietHours };

/** How much of the disk the cache may take. */
export type Quota = "auto" | "off" | { "bytes": number };

/** A new speed limit. */
export type SpeedLimit = "off" | { "bytes_per_second": number };

/** The look of the window. */
export type Theme = "system" | "light" | "dark";

/** How often what is on disk is compared with its digest before it is served. */
export type Verify = "daily" | "always";

/** New values for [`Settings`]; `None` leaves one as it is. */
export type SettingsChange = {
  /** `en`, `vi`, or `system`. */
  language: string | null,
  /** The look. */
  theme: Theme | null,
  /** The speed limit, or that there shall be none. */
  speed_limit: SpeedLimit | null,
  /** How much of the disk the cache may take. */
  quota: Quota | null,
  /** The age limit, or that there shall be none. */
  max_age_days: AgeLimit | null,
  /** How often what is on disk is checked. */
  verify: Verify | null,
  /** Whether no registry is to be asked anything. */
  offline: boolean | null,
  /** One rule of freshness. */
  freshness: FreshnessChange | null,
  /** The quiet hours, or that there shall be none. */
  quiet_hours: QuietChange | null,
  /** Whether the link is paid for by the byte. */
  metered: Metered | null, };

/** A change of who is asked for a registry. */
export type UpstreamChange = "add" | "remove" | "trust" | "restore";

/** One question to a running Sampan. Read-only unless its description says what it changes. */
export type Command = { "call": "snapshot" } | { "call": "watch" } | { "call": "savings",
  /** 1 to 366. */
  days: number, } | { "call": "history",
  /** 1 to 1000. */
  limit: number, } | { "call": "images" } | { "call": "clear_preview",
  /** What to clear. */
  selection: ClearSelection, } | { "call": "clear",
  /** What to clear. */
  selection: ClearSelection,
  /** Removes one image at once too, with no way back. */
  immediate: boolean, } | { "call": "clear_undo",
  /** [`ClearReport::undo`]; `None`: the one cleared last. */
  id: number | null, } | { "call": "pin",
  /** As in [`ClearSelection::Images`]; without a tag or digest: every tag held of it. */
  name: string,
  /** Whether it shall be kept. */
  pinned: boolean, } | { "call": "refresh",
  /** As in [`ClearSelection::Images`], without a digest; without a tag: every tag held of it. */
  name: string, } | { "call": "freeze",
  /** `nginx:1.27`, or `nginx:1.27@sha256:…` for an earlier digest that is held. */
  name: string,
  /** Whether it shall stay. */
  frozen: boolean, } | { "call": "image_details",
  /** As in [`ClearSelection::Images`]; without a tag or digest: every tag held of it. */
  name: string, } | { "call": "scrub",
  /** Begin, or stop. Beginning what runs already, and stopping what does not, does nothing; one that Sampan began by
   * itself makes way. */
  start: boolean, } | { "call": "health" } | { "call": "export",
  /** The images, as in [`ClearSelection::Images`]. */
  names: Array<string>,
  /** An absolute path: ending in `.tar` it becomes one file, else a folder. */
  path: string, } | { "call": "import",
  /** An absolute path. */
  path: string,
  /** Whether the names in it are taken as proof that these registries show these images. Else an upstream must
   * confirm each image before it is served. */
  trust_names: boolean,
  /** What the image is called, with its tag, for a file or folder of one image that does not say it itself. */
  name: string | null, } | { "call": "stop_task" } | { "call": "prefetch",
  /** What to do. */
  change: PrefetchChange, } | { "call": "verify_offline",
  /** An image, as people write it. */
  name: string,
  /** As in [`PrefetchItem::platform`]. */
  platform: string | null, } | { "call": "pause",
  /** Resume by itself after this many seconds; `None`: when told. */
  seconds: number | null, } | { "call": "resume" } | { "call": "docker" } | { "call": "engines" } | { "call": "docker_plan",
  /** Which way. */
  action: DockerAction,
  /** The registries to set up besides Docker Hub, which always is; Sampan's files for others are removed. `None`:
   * those that are set up now. Disabling takes back all of them, whatever is said here. */
  registries: Array<string> | null,
  /** Whether the engine shall restart where it need only read its configuration again: the plan then names the
   * containers that stop, and [`Command::DockerApply`] needs the second consent. Refused with the commands where
   * nothing can restart it. */
  restart: boolean, } | { "call": "docker_apply",
  /** [`DockerPlan::id`] of the plan the person consented to. */
  plan: string,
  /** The second consent: the engine may be restarted, which stops the containers the plan names. */
  restart: boolean, } | { "call": "docker_leave" } | { "call": "docker_prove" } | { "call": "clients" } | { "call": "client_plan",
  /** [`ClientSetup::id`]. */
  client: string,
  /** Which way. */
  action: DockerAction,
  /** As in [`Command::DockerPlan`]. */
  registries: Array<string> | null, } | { "call": "client_apply",
  /** [`DockerPlan::id`] of the plan the person consented to. */
  plan: string, } | { "call": "upstreams" } | { "call": "upstream_change",
  /** What to do with it. */
  change: UpstreamChange,
  /** As in [`RegistryUpstreams::registry`]. */
  registry: string,
  /** As in [`UpstreamWeather::url`]. */
  url: string, } | { "call": "doctor" } | { "call": "configure",
  /** The new values; absent ones stay. */
  change: SettingsChange, } | { "call": "private_allow",
  /** `ghcr.io/acme/app`, or `ghcr.io/acme/*` with everything below. */
  pattern: string,
  /** Which login. */
  login: LoginKind,
  /** The host of a token server that is not the registry's own, of the same domain. */
  realm: string | null, } | { "call": "private_remove",
  /** [`PrivateRule::pattern`]. */
  pattern: string, } | { "call": "private_retry" } | { "call": "open_window" };

/** A blob that was found damaged and set aside. */
export type Damage = {
  /** The blob. */
  digest: string,
  /** When it was found. */
  found: number,
  /** The size it should have. */
  size_bytes: number,
  /** When right bytes were there again; `None`: the next pull fetches them. */
  healed: number | null, };

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

/** A builder of `docker build`. */
export type DockerBuilder = {
  /** Its name. */
  name: string,
  /** `docker`, `docker-container`, `kubernetes`, `remote` … */
  driver: string,
  /** Whether `docker build` uses it now. */
  current: boolean,
  /** Whether builds with it ask Sampan. */
  uses_mirror: boolean,
  /** Why, or why not, one English sentence. */
  why: string, };

/** What somebody else changed of Docker's set-up. Enabling again restores it, `docker_leave` leaves it as it is. */
export type DockerDrift = {
  /** One English sentence for each difference. */
  what: Array<string>,
  /** When it was noticed first. */
  since: number, };

/** One registry, as an engine is set up for it. */
export type DockerRegistry = {
  /** Its name in image names: `ghcr.io`. */
  registry: string,
  /** Whether the engine asks Sampan for it. */
  active: boolean,
  /** Its hosts.toml, where the engine reads one. */
  path: string | null,
  /** Whether that file is somebody else's. */
  foreign: boolean,
  /** Whether a person can choose it, or no longer choose it. */
  changeable: boolean,
  /** Why not: one English sentence. */
  note: string | null, };

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
  /** The registries that can be set up: Docker Hub first, then those Sampan serves, where this engine can be told. */
  registries: Array<DockerRegistry>,
  /** Names of the running containers. */
  containers: Array<string>,
  /** Whether containers go on running while the engine is away. */
  live_restore: boolean,
  /** The builders of `docker build`, the engine's own first. */
  builders: Array<DockerBuilder>,
  /** Why an earlier set-up is no longer whole, after an update of Docker; enabling again repairs it. */
  needs_repair: string | null,
  /** Files of a change of the privileged helper's that was cut short. Enabling or disabling settles it. */
  cut_short: Array<string>,
  /** Whether Sampan can set this engine up. */
  supported: boolean,
  /** Why not, or what to know; English sentences. */
  notes: Array<string>,
  /** What was looked at and seen, one line each: `socket /var/run/docker.sock answers as dockerd 28.5.2`. */
  evidence: Array<string>,
  /** When a container engine last asked Sampan for a manifest. */
  last_used: number | null,
  /** What somebody else changed of what Sampan set up; `None`: nothing, or a person left it as it is. */
  drift: DockerDrift | null, };

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
  /** Whether a change that was cut short is settled first: something to do, even where no file changes. */
  settles: boolean,
  /** The same by hand, one shell command a line. */
  commands: Array<string>,
  /** What else happens, and what does not: English sentences. */
  notes: Array<string>, };

/** One engine of this machine, whether or not the current context means it. */
export type EngineFound = {
  /** `Docker Engine`, `Docker Desktop`, `Colima`, `Podman` …; where it does not answer, what is usually there. */
  engine: string,
  /** Where it is reached. */
  endpoint: string,
  /** The Docker contexts that name it. */
  contexts: Array<string>,
  /** Its version. */
  version: string | null,
  /** `classic` or `containerd`. */
  image_store: string | null,
  /** Whether it answers. */
  answers: boolean,
  /** Whether it is the one the `docker` command speaks to. */
  current: boolean,
  /** What was looked at and seen, one line each. */
  evidence: Array<string>, };

/** Something an export or import left out. */
export type Skipped = {
  /** The image or blob. */
  name: string,
  /** Why, in English: "the cache does not hold it". */
  why: string, };

/** What an export wrote. */
export type Exported = {
  /** The file or folder. */
  path: string,
  /** The images in it: `docker.io/library/nginx:1.27`. */
  images: Array<string>,
  /** Blobs and manifests in it. */
  blobs: number,
  /** Their bytes. */
  bytes: number,
  /** What was left out. */
  skipped: Array<Skipped>, };

/** A scrub that ended. */
export type ScrubRun = {
  /** When. */
  ended: number,
  /** Blobs compared. */
  blobs: number,
  /** Bytes read. */
  bytes: number,
  /** Blobs found damaged: they are set aside, and the next pull fetches them again. */
  damaged: number,
  /** Files that the disk did not give back: nothing is known of them, and they stay. */
  unreadable: number,
  /** Whether it came to its end; else it was stopped, or it failed. */
  complete: boolean,
  /** Why it failed, one English sentence; the numbers above are then those of nothing. */
  error: string | null, };

/** [`Health`], with the newest damages. */
export type HealthReport = {
  /** The counts. */
  health: Health,
  /** The newest damages, newest first, at most 100. */
  damages: Array<Damage>,
  /** The scrub that ended last since Sampan started. */
  last_run: ScrubRun | null, };

/** A part of an image: a manifest, a configuration or a layer. */
export type ImageBlob = {
  /** Its digest. */
  digest: string,
  /** Its size. */
  size_bytes: number,
  /** Whether it is in the cache. */
  held: boolean,
  /** What it is, where a held manifest says so: `application/vnd.oci.image.layer.v1.tar+gzip`. */
  media_type: string | null,
  /** How many images of the cache are made of it, this one included. */
  shared: number,
  /** When its bytes were last compared with its digest. */
  checked: number | null, };

/** One image, blob by blob. */
export type ImageDetails = {
  /** The image. */
  image: Image,
  /** Its parts, its own manifest included, those not held too. */
  blobs: Array<ImageBlob>, };

/** The numbers of one image. */
export type ImageTotals = {
  /** `docker.io/library/nginx`. */
  image: string,
  /** The numbers. */
  totals: Totals, };

/** What an import took in. */
export type Imported = {
  /** The images. */
  images: Array<string>,
  /** Blobs and manifests that were not in the cache before. */
  blobs: number,
  /** Their bytes. */
  bytes: number,
  /** Blobs and manifests that were in the cache already. */
  held_blobs: number,
  /** What was left out. */
  skipped: Array<Skipped>,
  /** What else is worth knowing of the archive: English sentences. */
  notes: Array<string>, };

/** An image that is kept fresh: asked for again each night. */
export type Kept = {
  /** In full. */
  name: string,
  /** `linux/amd64`, or `all`. */
  platform: string,
  /** When it is asked for next. */
  next: number,
  /** When its registry last said where the tag points. */
  checked: number | null,
  /** When it was last found to have moved. */
  moved: number | null,
  /** How many bytes came over the link then. */
  moved_bytes: number,
  /** Why the last time failed, if it did. */
  problem: string | null, };

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

/** How answers about tags came about, since this run began. */
export type TagAnswers = {
  /** The registry was not to be asked: its policy says so, or the tag is frozen. */
  unasked: number,
  /** Stale: the registry cannot be reached. */
  outage: number,
  /** Stale: its rate limit is used up. */
  rate_limit: number,
  /** Stale: it did not answer in time. */
  deadline: number,
  /** Stale: it answered with an error of its own. */
  upstream: number,
  /** Stale: a person switched Sampan offline. */
  offline: number,
  /** Stale: it did not answer the last times, and was left alone. */
  resting: number, };

/** A registry behind the mirror. */
export type Upstream = {
  /** Its name in image names: `docker.io`. */
  registry: string,
  /** Where it is asked. */
  url: string,
  /** The last contact: `true` it answered, `false` it did not, `None` it was not asked yet. */
  reachable: boolean | null,
  /** When that was. */
  checked: number | null,
  /** It did not answer several times in a row: it is left alone, but for a probe now and then. */
  resting: boolean,
  /** While it is left alone: from when on the next pull asks it again; `None` while it is being asked. */
  rests_until: number | null, };

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
  upstreams: Array<Upstream>,
  /** How answers about tags came about, since this run began. */
  tag_answers: TagAnswers, };

/** What a point is about. */
export type OfflinePart = "registry" | "tag" | "index" | "platform" | "manifest" | "config" | "layer" | "attestation";

/** What is wrong with a point. */
export type OfflineProblem = "missing" | "damaged" | "unreadable" | "unproven" | "not_mirrored";

/** One point. */
export type OfflineCheck = {
  /** What it is about. */
  what: OfflinePart,
  /** Which one: a digest, a tag, a platform. */
  name: string,
  /** Its size in bytes, where it has one. */
  size_bytes: number | null,
  /** What is wrong; `None`: it holds. */
  problem: OfflineProblem | null, };

/** Whether an image can be pulled with the network off, point by point. */
export type OfflineImage = {
  /** In full. */
  name: string,
  /** `linux/amd64`, or `all`. */
  platform: string,
  /** Whether every point holds. */
  holds: boolean,
  /** Bytes that were read and hashed. */
  hashed_bytes: number,
  /** The points, in the order in which a pull needs them. */
  checks: Array<OfflineCheck>, };

/** How it goes with an image in the queue. */
export type PrefetchJobState = "waiting" | "running" | "done" | "failed";

/** An image in the queue. */
export type PrefetchJob = {
  /** Unique and growing, across runs. */
  id: number,
  /** In full: `docker.io/library/nginx:1.27`. */
  name: string,
  /** `linux/amd64`, or `all`. */
  platform: string,
  /** Whether it is pinned once it is there. */
  pin: boolean,
  /** Whether quiet hours and a metered link are no reason to wait. */
  now: boolean,
  /** Whether it is in the queue because it is kept fresh. */
  kept: boolean,
  /** How it goes. */
  state: PrefetchJobState,
  /** Bytes of all of it; `None` until its manifests are known. */
  size_bytes: number | null,
  /** Bytes of it that are in the cache. */
  held_bytes: number,
  /** Bytes that came over the link for it in its last run. */
  fetched_bytes: number,
  /** When it was added. */
  added: number,
  /** When it ended. */
  ended: number | null,
  /** When it is tried again, where it failed for now. */
  again_at: number | null,
  /** Why it failed, for now or for good. */
  problem: ApiError | null,
  /** Its tag names another digest than before. */
  moved: boolean, };

/** Why nothing is fetched though images wait. */
export type PrefetchWait = "paused" | "sampan_paused" | "offline" | "quiet_hours" | "metered";

/** Everything about fetching ahead, at one moment. */
export type Prefetch = {
  /** A person paused the queue. */
  paused: boolean,
  /** Why nothing is fetched though images wait, if so. */
  waits: PrefetchWait | null,
  /** When the quiet hours begin, where they are waited for. */
  opens: number | null,
  /** The queue in its order, with what has ended lately. */
  jobs: Array<PrefetchJob>,
  /** What is kept fresh, by name. */
  kept: Array<Kept>, };

/** The closed reasons of [`PrivateProblem`]; each has texts in `ui/i18n` under `private.why.<why>`. */
export type WhyPrivate = "not_allowed" | "no_access" | "shared" | "unasked" | "no_login" | "config_unreadable" | "helper_missing" | "helper_failed" | "helper_slow" | "helper_output" | "login_unusable" | "login_refused" | "other_realm" | "plain_http" | "other_server" | "no_keyring" | "withdrawn";

/** Why a private image is not answered, and what to do about it. */
export type PrivateProblem = {
  /** The closed reason. */
  why: WhyPrivate,
  /** What it is about: a helper, a host, a file, a registry. */
  about: string | null,
  /** What happened, one English sentence. */
  message: string,
  /** What to do now, one English sentence. */
  next_step: string, };

/** A permission to use a login. */
export type PrivateRule = {
  /** `ghcr.io/acme/app`, or `ghcr.io/acme/*` with everything below. */
  pattern: string,
  /** Which login. */
  login: LoginKind,
  /** The token server it may be sent to besides the registry's own. */
  realm: string | null,
  /** When a registry last said whether the login opens one of these images. */
  checked: number | null,
  /** The image it said that of. */
  image: string | null,
  /** What is wrong, as far as is known. */
  problem: PrivateProblem | null, };

/** An image that needs a login and was not answered. */
export type PrivateSeen = {
  /** `ghcr.io/acme/app`. */
  image: string,
  /** When, last. */
  at: number,
  /** Why. */
  problem: PrivateProblem,
  /** The pattern a rule for it would have; `None`: there can be none. */
  pattern: string | null, };

/** What holds for private images. */
export type PrivateImages = {
  /** Which images may be fetched with a login, in the order of their patterns. All others that need one are Docker's own
   * matter. */
  rules: Array<PrivateRule>,
  /** Images that lately turned out to be private and were left to Docker, newest first, at most 20. */
  seen: Array<PrivateSeen>,
  /** Other machines reach this Sampan: then no rule is in force, and none can be made. */
  shared: boolean, };

/** How a pull goes, or went. */
export type PullState = "active" | "complete" | "interrupted" | "failed";

/** Why a tag was answered from the cache without its registry's word. */
export type StaleReason = "outage" | "rate_limit" | "deadline" | "upstream" | "offline" | "resting";

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
  /** Why, where it was. */
  stale_reason: StaleReason | null,
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

/** What a registry said of a tag. */
export type RefreshResult = "current" | "moved" | "gone" | "frozen" | "never" | "failed";

/** What became of asking about a tag. */
export type Refreshed = {
  /** `docker.io/library/nginx:1.27`. */
  name: string,
  /** What the registry said. */
  result: RefreshResult,
  /** Where the tag pointed, if it was held. */
  before: string | null,
  /** Where it points. */
  digest: string | null,
  /** Why it failed. */
  message: string | null, };

/** How an upstream lied. */
export type UpstreamLie = "bytes" | "size" | "part" | "digest";

/** Why an upstream is asked nothing. */
export type UpstreamDropped = {
  /** When that was found out. */
  at: number,
  /** When it is asked again by itself. */
  until: number,
  /** What it did. */
  lie: UpstreamLie,
  /** The image it was asked for. */
  image: string,
  /** The digest it was asked for. */
  digest: string, };

/** How an upstream is. */
export type UpstreamState = "unknown" | "good" | "failing" | "resting" | "dropped";

/** One upstream of a registry, and how it does. */
export type UpstreamWeather = {
  /** Where it is asked. */
  url: string,
  /** Whether it is the registry itself; the others are mirrors of it. */
  is_origin: boolean,
  /** Whether it says where tags point. Exactly one of a registry does. */
  is_trusted: boolean,
  /** How it is. */
  state: UpstreamState,
  /** Bytes per second it brings, smoothed, as last measured; `None`: not measured yet. */
  rate: number | null,
  /** Milliseconds until its answers begin, smoothed. */
  latency_millis: number | null,
  /** How often it failed lately. */
  failures: number,
  /** Blob bytes it brought since Sampan started. */
  bytes: number,
  /** Until when it is left alone, because it did not answer. */
  rests_until: number | null,
  /** That it lied, and is asked nothing. */
  dropped: UpstreamDropped | null, };

/** The upstreams of one registry. */
export type RegistryUpstreams = {
  /** Its name in image names: `docker.io`. */
  registry: string,
  /** Whether a person added the registry while Sampan ran: removing its origin removes it. */
  added: boolean,
  /** The registry itself first, then the others in the order they were added. */
  upstreams: Array<UpstreamWeather>, };

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
  speed_limit: number | null,
  /** How much of the disk the cache may take. */
  quota: Quota,
  /** Images not asked for in this many days are removed, pinned ones never: 1 to `AGE_LIMIT_DAYS_MAX`. `None`: age is
   * no reason. */
  max_age_days: number | null,
  /** How often what is on disk is compared with its digest before it is served. */
  verify: Verify,
  /** Whether no registry is asked anything: what is held is served, the rest fails at once. */
  offline: boolean,
  /** How often tags are asked about, by pattern; what none is for is asked about at every pull. */
  freshness: Array<FreshnessRule>,
  /** The hours in which images are fetched ahead; `None`: all. */
  quiet_hours: QuietHours | null,
  /** Whether the link is paid for by the byte. */
  metered: Metered, };

/** Which piece of work. */
export type TaskKind = "export" | "import";

/** A piece of work that takes a while. */
export type Task = {
  /** Which. */
  kind: TaskKind,
  /** Bytes done. */
  done_bytes: number,
  /** Bytes to do, as far as is known yet. */
  total_bytes: number,
  /** The image it is at; at first the file or folder. */
  name: string, };

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
  settings: Settings,
  /** The export or import that goes on. */
  task: Task | null,
  /** What is fetched ahead, and what is kept fresh. */
  prefetch: Prefetch,
  /** What somebody else changed of Docker's set-up, as far as it was noticed and not left as it is. */
  docker_drift: DockerDrift | null,
  /** Whether Docker asks Sampan, as it was seen last: there is something to take back. */
  docker_set_up: boolean,
  /** What registries that count pulls let this machine have, by name; empty where none told yet. */
  allowances: Array<Allowance>,
  /** What holds for private images. */
  private: PrivateImages, };

/** An answer to a [`Command`]. */
export type Reply = { "reply": "snapshot", "value": Snapshot } | { "reply": "savings", "value": Savings } | { "reply": "history", "value": Array<Pull> } | { "reply": "images", "value": Array<Image> } | { "reply": "clear_preview", "value": ClearReport } | { "reply": "cleared", "value": ClearReport } | { "reply": "image_details", "value": Array<ImageDetails> } | { "reply": "refreshed", "value": Array<Refreshed> } | { "reply": "health", "value": HealthReport } | { "reply": "exported", "value": Exported } | { "reply": "imported", "value": Imported } | { "reply": "prefetching", "value": Array<number> } | { "reply": "offline", "value": OfflineImage } | { "reply": "docker", "value": Docker } | { "reply": "engines", "value": Array<EngineFound> } | { "reply": "docker_plan", "value": DockerPlan } | { "reply": "docker_applied", "value": DockerApplied } | { "reply": "docker_proof", "value": DockerProof } | { "reply": "clients", "value": Array<ClientSetup> } | { "reply": "client_applied", "value": ClientApplied } | { "reply": "upstreams", "value": Array<RegistryUpstreams> } | { "reply": "doctor", "value": Array<Check> } | { "reply": "private_allowed", "value": PrivateProblem | null } | { "reply": "done" } | { "reply": "error", "value": ApiError };

/** What the window is told while it watches: the newest state, or that the connection to Sampan is lost for now. */
export type WatchMessage = { "kind": "snapshot", "value": Snapshot } | { "kind": "lost" };
