//! Several upstreams for one registry, as a person chose them: kept in `upstreams.json` of the state folder, with those that
//! were dropped for lying.

mod file;

use std::sync::atomic::{AtomicBool, Ordering};

use sampan_mirror::{Dropped, Mirror};
use sampan_oci::{Event, Lie, Millis, RegistryName};
use sampan_upstream::{Client, Upstream, UpstreamConfig, Url};

use crate::Config;
use crate::api::{
    ApiError, Check, CheckStatus, Code, RegistryUpstreams, UpstreamChange, UpstreamDropped, UpstreamLie,
    UpstreamState, UpstreamWeather,
};
use crate::app::{Inner, invalid};
use crate::config::{is_self, parse_url};
use file::{Chosen, Known};

/// How long one that lied is asked nothing (`sampan-mirror`'s own rule, shown here).
const DROPPED_MILLIS: i64 = 24 * 60 * 60 * 1000;
/// The most mirrors of one registry, and the most registries that may be added.
const MIRRORS_MAX: usize = 8;
const REGISTRIES_MAX: usize = 64;

/// What makes upstreams, and what was chosen of them.
pub(crate) struct Chooser {
    client: Client,
    /// Read, changed, saved and put in force as one.
    chosen: tokio::sync::Mutex<Chosen>,
    /// An upstream was dropped, and that is not saved yet.
    unsaved: AtomicBool,
}

impl Chooser {
    /// Reads what was chosen. A damaged file costs the choice, never the start.
    pub(crate) fn open(client: Client, config: &Config) -> Self {
        let chosen = tokio::sync::Mutex::new(Chosen::load(&config.state_dir));
        Self { client, chosen, unsaved: AtomicBool::new(false) }
    }

    /// Takes note of a lie.
    pub(crate) fn learn(&self, event: &Event) -> bool {
        let lied = matches!(event, Event::Lied { dropped: true, .. });
        if lied {
            self.unsaved.store(true, Ordering::Relaxed);
        }
        lied
    }

    fn upstream(&self, registry: &RegistryName, url: &Url) -> Upstream {
        let config = UpstreamConfig { registry: registry.clone(), url: url.clone() };
        Upstream::new(config, self.client.clone())
    }

    /// Puts one registry's choice in force.
    fn apply(&self, mirror: &Mirror, config: &Config, registry: &RegistryName, known: &Known) {
        let configured = origin_of(config, registry);
        let Some(origin) = configured.or(known.origin.clone()) else { return };
        mirror.set_upstreams(sampan_mirror::RegistryUpstreams {
            origin: self.upstream(registry, &origin),
            mirrors: known.mirrors.iter().map(|url| self.upstream(registry, url)).collect(),
            trusted: known.trusted.clone(),
        });
    }
}

/// Where the configuration says a registry is asked.
fn origin_of(config: &Config, registry: &RegistryName) -> Option<Url> {
    config.upstreams.iter().find(|(known, _)| known == registry).map(|(_, url)| url.clone())
}

impl Inner {
    /// Puts in force what was chosen in an earlier run.
    pub(crate) async fn recall_upstreams(&self) {
        let chosen = self.chooser.chosen.lock().await;
        for (registry, known) in &chosen.registries {
            self.chooser.apply(&self.mirror, &self.config, registry, known);
        }
        for (registry, url, dropped) in &chosen.dropped {
            self.mirror.set_dropped(registry, url, Some(dropped.clone()));
        }
    }

    /// Saves who was dropped meanwhile, if anybody was.
    pub(crate) async fn keep_upstreams(&self) {
        if self.chooser.unsaved.swap(false, Ordering::Relaxed) {
            let mut chosen = self.chooser.chosen.lock().await;
            if let Err(error) = self.save_upstreams(&mut chosen).await {
                tracing::warn!(error = error.message, "which upstreams were dropped cannot be kept");
            }
        }
    }

    async fn save_upstreams(&self, chosen: &mut Chosen) -> Result<(), ApiError> {
        let weather = self.mirror.weather().into_iter().flatten();
        chosen.dropped = weather
            .filter_map(|one| {
                Some((one.upstream.registry().clone(), one.upstream.url().clone(), one.dropped?))
            })
            .collect();
        let (saved, folder) = (chosen.clone(), self.config.state_dir.clone());
        let written = tokio::task::spawn_blocking(move || saved.save(&folder)).await;
        let failed = |message: String| ApiError {
            code: Code::Store,
            message,
            next_step: Some("Check the rights and the free space of the state folder.".into()),
        };
        match written {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(failed(format!("the choice of upstreams cannot be saved: {error}"))),
            Err(error) => Err(failed(error.to_string())),
        }
    }

    /// The upstreams of every registry, and how they do.
    pub(crate) async fn upstreams(&self) -> Vec<RegistryUpstreams> {
        let chosen = self.chooser.chosen.lock().await.clone();
        let now = self.clock.now();
        let shown = |all: Vec<sampan_mirror::UpstreamWeather>| {
            let registry = all.first()?.upstream.registry().clone();
            let added = chosen.registries.get(&registry).is_some_and(|known| known.origin.is_some());
            let upstreams = all.into_iter().map(|one| weather(one, now)).collect();
            Some(RegistryUpstreams { registry: registry.to_string(), added, upstreams })
        };
        self.mirror.weather().into_iter().filter_map(shown).collect()
    }

    /// Changes who is asked for a registry.
    pub(crate) async fn change_upstream(
        &self,
        change: UpstreamChange,
        registry: &str,
        url: &str,
    ) -> Result<Vec<RegistryUpstreams>, ApiError> {
        let (name, url) = self.named(registry, url)?;
        match change {
            UpstreamChange::Add => {
                self.choose(&name, |known, origin| added(known, origin.as_ref(), &name, &url)).await
            }
            UpstreamChange::Remove => {
                self.choose(&name, |known, origin| removed(known, origin.as_ref(), &name, &url)).await
            }
            UpstreamChange::Trust => {
                self.choose(&name, |known, origin| trusted(known, origin.as_ref(), &name, &url)).await
            }
            UpstreamChange::Restore => self.restore_upstream(&name, &url).await,
        }
    }

    async fn restore_upstream(
        &self,
        name: &RegistryName,
        url: &Url,
    ) -> Result<Vec<RegistryUpstreams>, ApiError> {
        let is_there = |one: &sampan_mirror::UpstreamWeather| {
            one.upstream.registry() == name && one.upstream.url() == url
        };
        if !self.mirror.weather().iter().flatten().any(is_there) {
            return Err(unknown(name, url));
        }
        self.mirror.set_dropped(name, url, None);
        {
            let mut chosen = self.chooser.chosen.lock().await;
            self.save_upstreams(&mut chosen).await?;
        }
        Ok(self.upstreams().await)
    }

    fn named(&self, registry: &str, url: &str) -> Result<(RegistryName, Url), ApiError> {
        let name =
            registry.trim().parse().map_err(|error: sampan_oci::InvalidName| invalid(error.to_string()))?;
        let url = parse_url(url.trim()).map_err(invalid)?;
        if is_self(&url, self.config.listen) {
            return Err(invalid(format!("{url} is the address Sampan itself listens at")));
        }
        Ok((name, url))
    }

    /// Changes the choice for one registry: `change` is given it, and the origin as it is. Saved first, then in force.
    async fn choose(
        &self,
        name: &RegistryName,
        change: impl FnOnce(&mut Known, Option<Url>) -> Result<(), ApiError>,
    ) -> Result<Vec<RegistryUpstreams>, ApiError> {
        {
            let mut chosen = self.chooser.chosen.lock().await;
            let before = chosen.clone();
            let mut known = before.registries.get(name).cloned().unwrap_or_default();
            let configured = origin_of(&self.config, name);
            let origin = configured.clone().or_else(|| known.origin.clone());
            change(&mut known, origin)?;
            if known == Known::default() {
                chosen.registries.remove(name);
            } else {
                chosen.registries.insert(name.clone(), known.clone());
            }
            if chosen.registries.len() > REGISTRIES_MAX {
                *chosen = before;
                return Err(invalid(format!(
                    "at most {REGISTRIES_MAX} registries can have upstreams of their own"
                )));
            }
            if let Err(error) = self.save_upstreams(&mut chosen).await {
                *chosen = before;
                return Err(error);
            }
            if configured.is_none() && known.origin.is_none() {
                self.mirror.remove_registry(name);
            } else {
                self.chooser.apply(&self.mirror, &self.config, name, &known);
            }
        }
        // A rule about private images may be about a registry that is mirrored only now.
        self.enforce_private();
        self.refresh().await;
        Ok(self.upstreams().await)
    }
}

/// One more; the first of a registry that is not mirrored yet is its origin.
fn added(known: &mut Known, origin: Option<&Url>, name: &RegistryName, url: &Url) -> Result<(), ApiError> {
    if origin == Some(url) || known.mirrors.contains(url) {
        return Err(invalid(format!("{url} is an upstream of {name} already")));
    }
    if known.mirrors.len() >= MIRRORS_MAX {
        return Err(invalid(format!("a registry has at most {MIRRORS_MAX} mirrors")));
    }
    if origin.is_none() {
        known.origin = Some(url.clone());
    } else {
        known.mirrors.push(url.clone());
    }
    Ok(())
}

/// One fewer; without its origin an added registry is mirrored no longer.
fn removed(known: &mut Known, origin: Option<&Url>, name: &RegistryName, url: &Url) -> Result<(), ApiError> {
    if known.mirrors.contains(url) {
        known.mirrors.retain(|other| other != url);
        known.trusted = known.trusted.take().filter(|trusted| trusted != url);
    } else if known.origin.as_ref() == Some(url) {
        *known = Known::default();
    } else if origin == Some(url) {
        let message = format!("{url} is {name} itself, as the configuration says");
        let next_step = Some("Change it in the configuration file or with --upstream.".into());
        return Err(ApiError { code: Code::InvalidRequest, message, next_step });
    } else {
        return Err(unknown(name, url));
    }
    Ok(())
}

/// This one is believed about tags.
fn trusted(known: &mut Known, origin: Option<&Url>, name: &RegistryName, url: &Url) -> Result<(), ApiError> {
    if origin == Some(url) {
        known.trusted = None;
    } else if known.mirrors.contains(url) {
        known.trusted = Some(url.clone());
    } else {
        return Err(unknown(name, url));
    }
    Ok(())
}

fn unknown(name: &RegistryName, url: &Url) -> ApiError {
    ApiError {
        code: Code::InvalidRequest,
        message: format!("{url} is no upstream of {name}"),
        next_step: Some("See which there are with `sampan upstreams`.".into()),
    }
}

/// One upstream as it is shown; whole seconds, so that looking twice at the same facts shows the same.
fn weather(one: sampan_mirror::UpstreamWeather, now: Millis) -> UpstreamWeather {
    let second = |at: i64| at.div_euclid(1000) * 1000;
    let millis = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let rests_until =
        one.rests_for.map(|rest| second(now.plus(i64::try_from(rest.as_millis()).unwrap_or(0)).0));
    let state = if one.dropped.is_some() {
        UpstreamState::Dropped
    } else if rests_until.is_some() {
        UpstreamState::Resting
    } else if one.failures > 0 {
        UpstreamState::Failing
    } else if one.first_byte.is_some() {
        UpstreamState::Good
    } else {
        UpstreamState::Unknown
    };
    UpstreamWeather {
        url: one.upstream.url().as_str().trim_end_matches('/').into(),
        is_origin: one.is_origin,
        is_trusted: one.is_trusted,
        state,
        rate: one.rate,
        latency_millis: one.first_byte.map(millis),
        failures: one.failures,
        bytes: one.bytes,
        rests_until,
        dropped: one.dropped.map(|dropped| shown(&dropped)),
    }
}

fn shown(dropped: &Dropped) -> UpstreamDropped {
    UpstreamDropped {
        at: dropped.at.0,
        until: dropped.at.plus(DROPPED_MILLIS).0,
        lie: match dropped.lie {
            Lie::Bytes => UpstreamLie::Bytes,
            Lie::Size => UpstreamLie::Size,
            Lie::Part => UpstreamLie::Part,
            Lie::Digest => UpstreamLie::Digest,
        },
        image: dropped.image.to_string(),
        digest: dropped.digest.to_string(),
    }
}

/// What the doctor says of upstreams: those that lied, and a tag's word that anybody on the way may change.
pub(crate) fn checks(mirror: &Mirror) -> Vec<Check> {
    let mut checks = Vec::new();
    for one in mirror.weather().into_iter().flatten() {
        let (registry, url) = (one.upstream.registry(), one.upstream.url());
        let url_shown = url.as_str().trim_end_matches('/');
        if let Some(Dropped { lie, image, digest, .. }) = &one.dropped {
            let did = match lie {
                Lie::Bytes => "sent other bytes than asked for",
                Lie::Size => "told a wrong size",
                Lie::Part => "sent another part than asked for",
                Lie::Digest => "named another digest than asked for",
            };
            checks.push(Check {
                name: format!("upstream {registry}"),
                status: CheckStatus::Warning,
                detail: format!("{url_shown} {did} ({image}, {digest}) and is asked nothing for a day"),
                next_step: Some(format!(
                    "Ask whoever runs it. To ask it again sooner: sampan upstreams restore {registry} {url_shown}. \
                     To be rid of it: sampan upstreams remove {registry} {url_shown}."
                )),
            });
        }
        if !one.is_origin && one.is_trusted && url.scheme() == "http" && !crate::config::is_loopback(url) {
            checks.push(Check {
                name: format!("upstream {registry}"),
                status: CheckStatus::Warning,
                detail: format!("{url_shown} says where tags point, and is asked without encryption"),
                next_step: Some(
                    "Give it a certificate and add it with https://, or trust the registry itself.".into(),
                ),
            });
        }
    }
    checks
}
