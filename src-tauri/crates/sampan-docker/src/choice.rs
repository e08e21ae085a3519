//! Which registries are set up: a person's choice, what is in place, and the set in the one spelling that the
//! privileged helper takes. Pure.

use std::fmt;
use std::str::FromStr;

use sampan_oci::RegistryName;

use crate::engine::{Access, Engine, HostsSeen};
use crate::method::Method;
use crate::trust;

/// The registries besides Docker Hub that most images come from. A registry's place is its bit in a [`KnownSet`], which
/// an installed helper reads: the list only ever grows at its end.
pub const KNOWN: [&str; 6] =
    ["ghcr.io", "quay.io", "gcr.io", "registry.k8s.io", "mcr.microsoft.com", "public.ecr.aws"];

/// Some of the registries in [`KNOWN`]. Written as a decimal number, the sum of their bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KnownSet(u8);

impl KnownSet {
    const ALL: u8 = (1 << KNOWN.len()) - 1;

    /// Those of `registries` that are in the list.
    pub fn of<'a>(registries: impl IntoIterator<Item = &'a RegistryName>) -> Self {
        Self(registries.into_iter().filter_map(bit).fold(0, |set, bit| set | bit))
    }

    /// Whether the list has this registry at all.
    pub fn knows(registry: &RegistryName) -> bool {
        bit(registry).is_some()
    }

    /// The registries, in the order of the list.
    pub fn names(self) -> Vec<RegistryName> {
        let names = KNOWN.iter().filter_map(|name| name.parse().ok());
        names.filter(|name| bit(name).is_some_and(|bit| self.0 & bit != 0)).collect()
    }
}

fn bit(registry: &RegistryName) -> Option<u8> {
    KNOWN.iter().position(|name| *name == registry.as_str()).map(|place| 1 << place)
}

impl fmt::Display for KnownSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The text is not the number of a [`KnownSet`] in its one spelling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is not a set of known registries")]
pub struct InvalidSet;

impl FromStr for KnownSet {
    type Err = InvalidSet;

    fn from_str(text: &str) -> Result<Self, InvalidSet> {
        let set = text.parse::<u8>().map_err(|_| InvalidSet)?;
        // Neither `+1` nor `01`.
        if set > Self::ALL || set.to_string() != text {
            return Err(InvalidSet);
        }
        Ok(Self(set))
    }
}

/// Which registries shall be set up besides Docker Hub, which always is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// Those that are.
    #[default]
    AsNow,
    /// These, and no others; made by [`Choice::only`].
    Only(Vec<RegistryName>),
}

impl Choice {
    /// Exactly these; Docker Hub need not be named, and order does not matter.
    pub fn only(registries: impl IntoIterator<Item = RegistryName>) -> Self {
        let mut list: Vec<_> = registries.into_iter().filter(|name| !name.is_docker_hub()).collect();
        list.sort();
        list.dedup();
        Self::Only(list)
    }

    /// What a helper was told. Registries that it does not know stay as they are.
    pub fn of_known(known: KnownSet, engine: &Engine) -> Self {
        let others = engine.hosts.iter().filter(|seen| seen.port().is_some());
        let others = others.map(|seen| seen.registry.clone()).filter(|name| !KnownSet::knows(name));
        Self::only(known.names().into_iter().chain(others))
    }

    /// Whether that registry shall be set up.
    pub(crate) fn takes(&self, seen: &HostsSeen) -> bool {
        seen.registry.is_docker_hub()
            || match self {
                Self::AsNow => seen.port().is_some(),
                Self::Only(list) => list.contains(&seen.registry),
            }
    }

    /// The chosen ones besides Docker Hub, where they were named.
    pub(crate) fn named(&self) -> &[RegistryName] {
        match self {
            Self::AsNow => &[],
            Self::Only(list) => list,
        }
    }

    /// The end of a plan's name, by which the choice is known again: `+ghcr.io+quay.io`.
    pub(crate) fn suffix(&self) -> String {
        match self {
            Self::AsNow => String::new(),
            Self::Only(list) if list.is_empty() => "+".into(),
            Self::Only(list) => list.iter().fold(String::new(), |suffix, name| suffix + "+" + name.as_str()),
        }
    }

    /// The choice that a plan of this name was made with; `None`: there is no such plan.
    pub fn of_plan(id: &str) -> Option<Self> {
        match id.split_once('+') {
            None => Some(Self::AsNow),
            Some((_, "")) => Some(Self::Only(Vec::new())),
            Some((_, names)) => {
                let names: Result<Vec<RegistryName>, _> = names.split('+').map(str::parse).collect();
                names.ok().map(Self::only)
            }
        }
    }
}

/// How one registry is set up in an engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryState {
    /// The registry.
    pub registry: RegistryName,
    /// Whether the engine asks Sampan for it.
    pub active: bool,
    /// Its `hosts.toml`, where the engine reads one.
    pub path: Option<std::path::PathBuf>,
    /// Whether that file is somebody else's.
    pub foreign: bool,
    /// Whether a person can choose it, or no longer choose it.
    pub changeable: bool,
    /// Why not, or what would follow: one English sentence.
    pub note: Option<String>,
}

/// The registries of an engine that asks Sampan on `port`: Docker Hub, those Sampan serves, and those it left a file
/// for.
pub fn registries(engine: &Engine, port: u16) -> Vec<RegistryState> {
    let hub = RegistryState {
        registry: RegistryName::docker_hub(),
        active: engine.enabled(port),
        path: None,
        foreign: false,
        changeable: false,
        note: None,
    };
    let method = engine.method();
    if !matches!(method, Ok(Method::HostsOnly | Method::HostsAndMirrors)) {
        return vec![hub];
    }
    let by_helper = needs_helper(engine);
    let state = |seen: &HostsSeen| {
        let (mine, registry) = (seen.port(), &seen.registry);
        let hub = registry.is_docker_hub();
        let note = locked(seen, engine, by_helper);
        RegistryState {
            registry: registry.clone(),
            active: if hub { engine.enabled(port) } else { mine == Some(port) },
            path: Some(seen.file.path.clone()),
            foreign: seen.is_foreign(),
            changeable: !hub && note.is_none(),
            note,
        }
    };
    let concerned = engine.hosts.iter().filter(|seen| seen.served || seen.port().is_some());
    concerned.map(state).collect()
}

/// Why a registry stays as it is: one English sentence.
fn locked(seen: &HostsSeen, engine: &Engine, by_helper: bool) -> Option<String> {
    let (path, registry) = (seen.file.path.display(), &seen.registry);
    if seen.is_foreign() {
        return Some(format!("{path} was written by somebody else and stays as it is."));
    }
    if seen.file.access == Access::ReadOnly {
        return Some(format!("{path} cannot be written: it is read-only."));
    }
    if seen.file.problem.is_some() {
        return seen.file.problem.clone();
    }
    if by_helper && !registry.is_docker_hub() && !KnownSet::knows(registry) {
        return Some(format!(
            "Sampan's privileged helper does not know {registry}: `sampan docker plan enable --registry {registry}` shows \
             the commands for {path}."
        ));
    }
    // What is set up can always be taken out.
    trust::obstacle(seen, &engine.insecure).filter(|_| seen.port().is_none())
}

/// Whether `hosts.toml` files are written by the privileged helper.
pub(crate) fn needs_helper(engine: &Engine) -> bool {
    let mut concerned = engine.hosts.iter().filter(|seen| seen.served || seen.port().is_some());
    concerned.any(|seen| seen.file.access == Access::NeedsElevation)
}

/// How images of other registries than Docker Hub get to Sampan where `hosts.toml` does not lead their pulls there: one
/// English sentence.
pub fn by_name(engine: &Engine, port: u16) -> Option<String> {
    let names = format!("by names such as localhost:{port}/ghcr.io/owner/name:tag");
    match engine.method() {
        Ok(Method::Mirrors) => Some(format!(
            "This Docker asks mirrors for Docker Hub only: other registries' images go {names}."
        )),
        Ok(Method::HostsAndMirrors) => Some(format!(
            "With the classic image store the other registries' files are read by builds only: pulls go {names}."
        )),
        Ok(Method::Desktop) => Some(
            "Docker Desktop asks mirrors for Docker Hub only: other registries are asked as ever.".into(),
        ),
        Ok(Method::HostsOnly) | Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> RegistryName {
        text.parse().unwrap()
    }

    #[test]
    fn a_set_of_known_registries_has_one_spelling() {
        for number in 0..64_u8 {
            let set: KnownSet = number.to_string().parse().unwrap();
            assert_eq!(set.to_string(), number.to_string(), "there and back");
            assert_eq!(KnownSet::of(&set.names()), set, "by its names too");
        }
        for text in
            ["", " 1", "1 ", "+1", "-1", "01", "00", "64", "255", "256", "1.0", "0x1", "a", "1\n", "١"]
        {
            assert_eq!(text.parse::<KnownSet>(), Err(InvalidSet), "{text:?} is not a set");
        }
    }

    #[test]
    fn the_place_of_a_registry_never_changes() {
        let table = [
            (1, "ghcr.io"),
            (2, "quay.io"),
            (4, "gcr.io"),
            (8, "registry.k8s.io"),
            (16, "mcr.microsoft.com"),
            (32, "public.ecr.aws"),
        ];
        assert_eq!(table.len(), KNOWN.len(), "a new one goes to the end of both");
        for (number, registry) in table {
            assert_eq!(KnownSet(number).names(), [name(registry)], "an installed helper may be older");
        }
        assert!(!KnownSet::knows(&RegistryName::docker_hub()), "Docker Hub is no choice");
    }

    #[test]
    fn a_choice_is_known_again_by_its_plans_name() {
        for (choice, suffix) in [
            (Choice::AsNow, ""),
            (Choice::only([]), "+"),
            (Choice::only([name("ghcr.io")]), "+ghcr.io"),
            (
                Choice::only([name("quay.io"), name("localhost:5000"), name("quay.io")]),
                "+localhost:5000+quay.io",
            ),
        ] {
            assert_eq!(choice.suffix(), suffix);
            assert_eq!(Choice::of_plan(&format!("0a1b{suffix}")), Some(choice), "{suffix}");
        }
        assert_eq!(Choice::of_plan("0a1b+Not A Name"), None, "no plan has that name");
        assert_eq!(
            Choice::only([RegistryName::docker_hub()]),
            Choice::only([]),
            "Docker Hub is always set up"
        );
    }
}
