//! The commands that fetch ahead, keep fresh, and look whether a pull holds with the network off.

use std::collections::HashMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::bail;
use jiff::tz::TimeZone;
use sampan_app::api::{
    Command, OfflineImage, Prefetch, PrefetchChange, PrefetchItem, PrefetchJob, PrefetchJobState, Reply,
    SettingsChange,
};
use sampan_app::list::{self, Vars};
use sampan_app::{Client, Config};

use crate::arguments::{Format, Keep, Pull, Queue, QueueCommand, VerifyOffline, Which};
use crate::ask::{answer, ask, connect, unexpected};
use crate::{output, show};

/// How often a line tells how far an image is, where no person watches.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// The images that were named, and those of the files.
fn items(which: &Which, vars: &Vars) -> anyhow::Result<Vec<PrefetchItem>> {
    let platform = which.platform.clone();
    let named =
        which.names.iter().map(|name| PrefetchItem { name: name.clone(), platform: platform.clone() });
    let mut items: Vec<PrefetchItem> = named.collect();
    for file in &which.files {
        let list = list::read(file, vars)?;
        for note in &list.notes {
            output::complain(note);
        }
        items.extend(list.images.into_iter().map(|listed| PrefetchItem {
            name: listed.name,
            platform: listed.platform.map(|own| own.to_string()).or_else(|| platform.clone()),
        }));
    }
    if items.is_empty() {
        bail!("the file needs no image that is pulled.");
    }
    Ok(items)
}

/// `sampan pull`: waits until all have ended, unless told not to.
pub(crate) async fn pull(config: &Config, pull: &Pull, vars: &Vars) -> anyhow::Result<ExitCode> {
    let images = items(&pull.which, vars)?;
    let mut client = connect(config).await?;
    let change = PrefetchChange::Add { images, pin: pull.pin, now: pull.now };
    let Reply::Prefetching(ids) = ask(&mut client, Command::Prefetch { change }).await? else {
        bail!(unexpected());
    };
    if pull.background {
        let queue = queue_now(&mut client).await?;
        let jobs: Vec<_> = queue.jobs.iter().filter(|job| ids.contains(&job.id)).collect();
        let text = || {
            format!(
                "{} in the queue; see `sampan queue`.\n",
                show::count(jobs.len(), "image is", "images are")
            )
        };
        answer(&jobs, Format { json: pull.json }, text)?;
        return Ok(ExitCode::SUCCESS);
    }
    let ended = wait(config, &ids, pull.json);
    tokio::select! {
        biased;
        interrupted = tokio::signal::ctrl_c() => {
            interrupted?;
            output::complain("it goes on in Sampan; see `sampan queue`, and cancel it there.");
            Ok(ExitCode::FAILURE)
        }
        ended = ended => ended,
    }
}

/// Tells how it goes with these until all have ended.
async fn wait(config: &Config, ids: &[u64], json: bool) -> anyhow::Result<ExitCode> {
    let mut snapshots = connect(config).await?.watch().await?;
    let mut told = Told::new(json);
    while let Some(snapshot) = snapshots.next().await {
        let queue = &snapshot.prefetch;
        let mut left = false;
        let mut last = Vec::new();
        for id in ids {
            let Some(job) = queue.jobs.iter().find(|job| job.id == *id) else { continue };
            told.tell(job, queue)?;
            left |= job.ended.is_none();
            last.push(job.clone());
        }
        if left {
            continue;
        }
        drop(told);
        if last.len() < ids.len() {
            output::complain("some images were taken out of the queue.");
        }
        let done = last.iter().filter(|job| job.state == PrefetchJobState::Done).count();
        if !json {
            output::print(&show::fetched(&last))?;
        }
        return Ok(if done == ids.len() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    bail!("Sampan has ended; it goes on with its next start.")
}

/// What was told of each image.
struct Told {
    json: bool,
    last: HashMap<u64, (PrefetchJob, String, Instant)>,
    line: output::Progress,
}

impl Told {
    fn new(json: bool) -> Self {
        Self { json, last: HashMap::new(), line: output::Progress::new() }
    }

    /// Tells of a job where that is news. Each JSON document is one line.
    fn tell(&mut self, job: &PrefetchJob, queue: &Prefetch) -> anyhow::Result<()> {
        let before = self.last.get(&job.id);
        if before.is_some_and(|(before, ..)| before == job) && queue.waits.is_none() {
            return Ok(());
        }
        let text = show::job(job, queue, &TimeZone::system());
        let now = Instant::now();
        if self.json {
            if before.is_none_or(|(before, ..)| before != job) {
                output::print(&(serde_json::to_string(job)? + "\n"))?;
            }
        } else if job.state == PrefetchJobState::Running && self.line.is_watched() {
            self.line.show(&text);
        } else {
            let same_state = |(before, ..): &&(PrefetchJob, String, Instant)| before.state == job.state;
            let early = |(_, said, at): &(PrefetchJob, String, Instant)| {
                *said == text || (job.state == PrefetchJobState::Running && at.elapsed() < TELL_EVERY)
            };
            if before.filter(same_state).is_some_and(early) {
                return Ok(());
            }
            self.line.clear();
            output::ask(&format!("{text}\n"));
        }
        self.last.insert(job.id, (job.clone(), text, now));
        Ok(())
    }
}

async fn queue_now(client: &mut Client) -> anyhow::Result<Prefetch> {
    let Reply::Snapshot(snapshot) = ask(client, Command::Snapshot).await? else { bail!(unexpected()) };
    Ok(snapshot.prefetch)
}

/// `sampan queue`: changes what it is told to, then shows the queue.
pub(crate) async fn queue(config: &Config, queue: &Queue) -> anyhow::Result<ExitCode> {
    let mut client = connect(config).await?;
    if queue.quiet_hours.is_some() || queue.metered.is_some() {
        let (quiet_hours, metered) = (queue.quiet_hours, queue.metered);
        let change = SettingsChange { quiet_hours, metered, ..SettingsChange::default() };
        ask(&mut client, Command::Configure { change }).await?;
    }
    let changes: Vec<PrefetchChange> = match &queue.what {
        None => Vec::new(),
        Some(QueueCommand::Cancel { all: true, .. }) => vec![PrefetchChange::Cancel { id: None }],
        Some(QueueCommand::Cancel { ids, .. }) => {
            ids.iter().map(|id| PrefetchChange::Cancel { id: Some(*id) }).collect()
        }
        Some(QueueCommand::Retry { ids }) => ids.iter().map(|id| PrefetchChange::Retry { id: *id }).collect(),
        Some(QueueCommand::Pause) => vec![PrefetchChange::Pause { paused: true }],
        Some(QueueCommand::Resume) => vec![PrefetchChange::Pause { paused: false }],
    };
    for change in changes {
        ask(&mut client, Command::Prefetch { change }).await?;
    }
    let Reply::Snapshot(snapshot) = ask(&mut client, Command::Snapshot).await? else { bail!(unexpected()) };
    let zone = TimeZone::system();
    answer(&snapshot.prefetch, queue.format, || show::queue(&snapshot.prefetch, &snapshot.settings, &zone))?;
    Ok(ExitCode::SUCCESS)
}

/// `sampan keep`: changes what it is told to, then shows what is kept fresh.
pub(crate) async fn keep(config: &Config, keep: &Keep) -> anyhow::Result<ExitCode> {
    let mut client = connect(config).await?;
    let format = match keep {
        Keep::Add(fresh) | Keep::Remove(fresh) => {
            for name in &fresh.names {
                let (name, platform) = (name.clone(), fresh.platform.clone());
                let change = PrefetchChange::Keep { name, platform, keep: matches!(keep, Keep::Add(_)) };
                ask(&mut client, Command::Prefetch { change }).await?;
            }
            fresh.format
        }
        Keep::List(format) => *format,
    };
    let kept = queue_now(&mut client).await?.kept;
    answer(&kept, format, || show::kept(&kept, &TimeZone::system()))?;
    Ok(ExitCode::SUCCESS)
}

/// `sampan verify-offline`: one image after the other; fails where a point of any does not hold.
pub(crate) async fn verify_offline(
    config: &Config,
    verify: &VerifyOffline,
    vars: &Vars,
) -> anyhow::Result<ExitCode> {
    let items = items(&verify.which, vars)?;
    let mut client = connect(config).await?;
    let mut images: Vec<OfflineImage> = Vec::new();
    for PrefetchItem { name, platform } in items {
        let Reply::Offline(image) = ask(&mut client, Command::VerifyOffline { name, platform }).await? else {
            bail!(unexpected());
        };
        if !verify.format.json {
            output::print(&show::verified(&image))?;
        }
        images.push(image);
    }
    let holds = images.iter().all(|image| image.holds);
    if verify.format.json {
        answer(&images, verify.format, String::new)?;
    } else {
        output::print(&show::verified_sum(&images))?;
    }
    Ok(if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
