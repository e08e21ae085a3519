//! The commands about freshness: refreshing, freezing, and the rules as the mirror takes them.

use std::time::Duration;

use sampan_mirror::{Check, Pattern, Policy};
use sampan_oci::{ImageName, Reference, Tag};

use crate::api::{
    ApiError, FRESHNESS_RULES_MAX, FRESHNESS_SECONDS_MAX, Freshness, FreshnessChange, FreshnessRule,
    RefreshResult, Refreshed,
};
use crate::app::{Inner, invalid};
use crate::convert;

/// The most tags asked about by one command.
const REFRESHED_MAX: usize = 200;

/// The rules as the mirror takes them. What is no pattern is left out; [`checked`] lets none in.
pub(crate) fn rules(rules: &[FreshnessRule]) -> sampan_mirror::Freshness {
    let seconds = |seconds: u32| Duration::from_secs(seconds.into());
    sampan_mirror::Freshness::new(rules.iter().filter_map(|rule| {
        let check = match rule.check {
            Freshness::Always => Check::Always,
            Freshness::Every(every) => Check::Every(seconds(every)),
            Freshness::OnRequest => Check::OnRequest,
            Freshness::Never => Check::Never,
        };
        Some((rule.pattern.parse().ok()?, Policy { check, stale_max: rule.stale_max_seconds.map(seconds) }))
    }))
}

/// A rule with its pattern written out in full.
/// # Errors
/// A sentence for the person who wrote it.
pub(crate) fn checked(rule: &FreshnessRule) -> Result<FreshnessRule, String> {
    let pattern = rule.pattern.parse::<Pattern>().map_err(|error| error.to_string())?;
    let within = |seconds: u32| (1..=FRESHNESS_SECONDS_MAX).contains(&seconds);
    let every = match rule.check {
        Freshness::Every(seconds) => Some(seconds),
        Freshness::Always | Freshness::OnRequest | Freshness::Never => None,
    };
    if !every.into_iter().chain(rule.stale_max_seconds).all(within) {
        return Err("a time is 1 second to 366 days".into());
    }
    Ok(FreshnessRule { pattern: pattern.to_string(), ..rule.clone() })
}

/// The rules after a change, in the order of their patterns.
/// # Errors
/// [`Code::InvalidRequest`](crate::api::Code::InvalidRequest): what is wrong with it.
pub(crate) fn changed(
    rules: &[FreshnessRule],
    change: &FreshnessChange,
) -> Result<Vec<FreshnessRule>, ApiError> {
    let mut rules = rules.to_vec();
    match change {
        FreshnessChange::Set(rule) => {
            let rule = checked(rule).map_err(invalid)?;
            rules.retain(|known| known.pattern != rule.pattern);
            rules.push(rule);
            if rules.len() > FRESHNESS_RULES_MAX {
                return Err(invalid(format!("there are at most {FRESHNESS_RULES_MAX} freshness rules")));
            }
        }
        FreshnessChange::Unset(pattern) => {
            let full = pattern.parse::<Pattern>().map_err(|error| invalid(error.to_string()))?.to_string();
            let before = rules.len();
            rules.retain(|known| known.pattern != full);
            if rules.len() == before {
                let message = format!("there is no freshness rule for {full}");
                return Err(convert::not_held(message, "See `sampan freshness`."));
            }
        }
    }
    rules.sort_by(|a, b| a.pattern.cmp(&b.pattern));
    Ok(rules)
}

impl Inner {
    /// Asks the registries of these tags where they point.
    pub(crate) async fn refresh_tags(&self, name: &str) -> Result<Vec<Refreshed>, ApiError> {
        let selected = convert::selected(name)?;
        let tags = match selected.reference {
            Some(Reference::Tag(tag)) => vec![tag],
            Some(Reference::Digest(_)) => {
                return Err(invalid("a digest names its own bytes and never changes: name a tag"));
            }
            None => self.tags_held(&selected.image).await?,
        };
        if tags.is_empty() {
            let message = format!("no tag of {name} is in the cache");
            return Err(convert::not_held(message, "See `sampan images`, or name a tag."));
        }
        let mut refreshed = Vec::new();
        for tag in tags.into_iter().take(REFRESHED_MAX) {
            let answer = self.mirror.refresh(&selected.image, &tag).await;
            refreshed.push(told(&selected.image, tag, answer));
        }
        self.list_changed();
        self.refresh().await;
        Ok(refreshed)
    }

    async fn tags_held(&self, image: &ImageName) -> Result<Vec<Tag>, ApiError> {
        let images = self.store.images().await.map_err(|error| convert::store_failed(&error))?;
        Ok(images.into_iter().filter(|entry| entry.image == *image).filter_map(|entry| entry.tag).collect())
    }

    /// Holds a tag fast, or lets it move again. `name`: `image:tag`, or `image:tag@digest` for another digest than the one
    /// it points at.
    pub(crate) async fn freeze(&self, name: &str, frozen: bool) -> Result<(), ApiError> {
        let tagged = name.split_once('@').map_or(name, |(tagged, _)| tagged);
        let selected = convert::selected(tagged)?;
        let Some(Reference::Tag(tag)) = selected.reference else {
            return Err(invalid("name an image with its tag: nginx:1.27, or nginx:1.27@sha256:…"));
        };
        let image = selected.image;
        let failed = |error| convert::store_failed(&error);
        if frozen {
            let digest = match convert::selected(name)?.reference {
                Some(Reference::Digest(digest)) => Some(digest),
                Some(Reference::Tag(_)) | None => {
                    self.store.held_tag(&image, &tag).await.map_err(failed)?.map(|held| held.digest)
                }
            };
            let held = match digest {
                Some(digest) => self.store.freeze(&image, &tag, &digest).await.map_err(failed)?,
                None => false,
            };
            if !held {
                let wanted = digest.map_or(format!("{image}:{tag}"), |digest| format!("{image}@{digest}"));
                let next_step = format!("Pull it first: docker pull {wanted}");
                return Err(convert::not_held(format!("{wanted} is not in the cache"), &next_step));
            }
        } else if !self.store.unfreeze(&image, &tag).await.map_err(failed)? {
            return Err(convert::not_held(format!("{image}:{tag} is not frozen"), "See `sampan images`."));
        }
        self.list_changed();
        self.refresh().await;
        Ok(())
    }
}

fn told(image: &ImageName, tag: Tag, answer: sampan_mirror::Refreshed) -> Refreshed {
    use sampan_mirror::Refreshed as Answer;
    let name = image.with(&Reference::Tag(tag));
    let (result, before, digest, message) = match answer {
        Answer::Current(digest) => (RefreshResult::Current, Some(digest), Some(digest), None),
        Answer::Moved { from, to } => (RefreshResult::Moved, from, Some(to), None),
        Answer::Gone => (RefreshResult::Gone, None, None, None),
        Answer::Frozen(digest) => (RefreshResult::Frozen, Some(digest), Some(digest), None),
        Answer::Never => (RefreshResult::Never, None, None, None),
        Answer::Failed(why) => (RefreshResult::Failed, None, None, Some(why)),
    };
    let [before, digest] = [before, digest].map(|digest| digest.map(|digest| digest.to_string()));
    Refreshed { name, result, before, digest, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(pattern: &str, check: Freshness) -> FreshnessRule {
        FreshnessRule { pattern: pattern.into(), check, stale_max_seconds: None }
    }

    #[test]
    fn a_rule_is_set_once_a_pattern_and_unset_by_any_spelling_of_it() {
        let set = |rules: &[FreshnessRule], pattern, check| {
            changed(rules, &FreshnessChange::Set(rule(pattern, check))).unwrap()
        };
        let rules = set(&[], "nginx", Freshness::Never);
        let rules = set(&rules, "docker.io/library/nginx", Freshness::Every(900));
        assert_eq!(rules, [rule("docker.io/library/nginx", Freshness::Every(900))]);
        let rules = set(&rules, "*", Freshness::OnRequest);
        assert_eq!(rules.len(), 2);
        let rules = changed(&rules, &FreshnessChange::Unset("library/nginx".into())).unwrap();
        assert_eq!(rules, [rule("*/**", Freshness::OnRequest)]);
        assert!(changed(&rules, &FreshnessChange::Unset("nginx".into())).is_err(), "it is gone already");
    }

    #[test]
    fn what_is_no_rule_is_refused() {
        for bad in [
            rule("a b", Freshness::Always),
            rule("nginx", Freshness::Every(0)),
            rule("nginx", Freshness::Every(FRESHNESS_SECONDS_MAX + 1)),
            FreshnessRule { stale_max_seconds: Some(0), ..rule("nginx", Freshness::Always) },
        ] {
            assert!(changed(&[], &FreshnessChange::Set(bad.clone())).is_err(), "{bad:?}");
        }
    }
}
