//! The commands about private images: the rules, what became of them, and what to do about it.

mod file;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use sampan_mirror::{Barred, PrivatePattern};
use sampan_upstream::{DockerLogins, LoginOptions, LoginSource, LoginTrouble, has_login, may_be_named};

use crate::api::{
    ApiError, Code, LoginKind, PrivateImages, PrivateProblem, PrivateRule, PrivateSeen, WhyPrivate,
};
use crate::app::{Inner, invalid};
use crate::convert;

/// The most rules there may be.
const RULES_MAX: usize = 100;

/// A rule as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pattern: PrivatePattern,
    login: LoginKind,
    realm: Option<String>,
}

/// The rules, and where Docker's logins are.
#[derive(Debug)]
pub(crate) struct Rules {
    docker: DockerLogins,
    state: Mutex<State>,
    /// One change at a time, from reading to being in force.
    changing: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    rules: Vec<Rule>,
    /// What was found wrong with a login when it was last looked for, by pattern.
    troubles: HashMap<String, LoginTrouble>,
}

impl State {
    /// Which login an image would be fetched with.
    fn login_for(&self, image: &sampan_oci::ImageName) -> LoginKind {
        let rule = self.rules.iter().find(|rule| rule.pattern.matches(image));
        rule.map_or(LoginKind::Docker, |rule| rule.login)
    }
}

impl Rules {
    /// The rules as the last run left them.
    pub(crate) fn open(state_dir: &std::path::Path, docker: DockerLogins) -> Self {
        let state = State { rules: file::load(state_dir), troubles: HashMap::new() };
        Self { docker, state: Mutex::new(state), changing: tokio::sync::Mutex::default() }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn source(&self, login: LoginKind) -> LoginSource {
        match login {
            LoginKind::Docker => LoginSource::Docker(self.docker.clone()),
            LoginKind::Keyring => LoginSource::Keyring,
        }
    }
}

impl Inner {
    /// Puts the rules in force: on this machine alone (SECURITY.md R85).
    pub(crate) fn enforce_private(&self) {
        let rules = if self.shares() { Vec::new() } else { self.private.state().rules.clone() };
        if !rules.is_empty() {
            leave_no_core();
        }
        let rules = rules.into_iter().map(|rule| sampan_mirror::PrivateRule {
            pattern: rule.pattern,
            login: LoginOptions { source: self.private.source(rule.login), realm: rule.realm },
        });
        self.mirror.set_private(rules.collect());
    }

    fn shares(&self) -> bool {
        !self.config.listen.ip().is_loopback()
    }

    /// What holds for private images now.
    pub(crate) fn private_images(&self) -> PrivateImages {
        let state = self.private.state();
        let rules = state.rules.iter().map(|rule| {
            let check = self.mirror.private_check(&rule.pattern);
            let wrong = check.as_ref().and_then(|check| check.result.as_ref().err());
            // What a registry said is worth more than what was looked up before.
            let trouble = state.troubles.get(&rule.pattern.to_string()).filter(|_| check.is_none());
            let barred = wrong.cloned().or_else(|| trouble.cloned().map(Barred::Login));
            PrivateRule {
                pattern: rule.pattern.to_string(),
                login: rule.login,
                realm: rule.realm.clone(),
                checked: check.as_ref().map(|check| check.at.0),
                image: check.map(|check| check.image.to_string()),
                problem: barred.map(|barred| problem(&barred, rule.pattern.registry().as_str(), rule.login)),
            }
        });
        let seen = self.mirror.private_seen().into_iter().map(|seen| PrivateSeen {
            problem: problem(&seen.why, seen.image.registry.as_str(), state.login_for(&seen.image)),
            pattern: PrivatePattern::around(&seen.image).map(|pattern| pattern.to_string()),
            image: seen.image.to_string(),
            at: seen.at.0,
        });
        PrivateImages { rules: rules.collect(), seen: seen.collect(), shared: self.shares() }
    }

    /// Lets Sampan fetch these images with a login. Returns what is wrong with that login, if something is.
    pub(crate) async fn private_allow(
        self: &Arc<Self>,
        pattern: &str,
        login: LoginKind,
        realm: Option<&str>,
    ) -> Result<Option<PrivateProblem>, ApiError> {
        let pattern: PrivatePattern = pattern
            .parse()
            .map_err(|error: sampan_mirror::InvalidPrivatePattern| invalid(error.to_string()))?;
        if self.shares() {
            let message =
                "other machines reach this Sampan, and private images are for this one alone".into();
            let next_step = Some("Let it listen on 127.0.0.1, or leave private images to Docker.".into());
            return Err(ApiError { code: Code::InvalidRequest, message, next_step });
        }
        let registry = pattern.registry();
        if !self.mirror.upstreams().any(|upstream| upstream.registry() == registry) {
            let next_step =
                Some("See `sampan status` for those it does; `upstreams` in config.toml adds one.".into());
            let message = format!("Sampan does not mirror {registry}");
            return Err(ApiError { code: Code::InvalidRequest, message, next_step });
        }
        if let Some(host) = realm.filter(|host| !may_be_named(host, registry)) {
            let message = format!("{host:?} is not a host of the same domain as {registry}");
            let next_step = Some(
                "A login goes to no other domain: write the host alone, such as sso.acme.example.".into(),
            );
            return Err(ApiError { code: Code::InvalidRequest, message, next_step });
        }
        let rule = Rule { login, realm: realm.map(str::to_owned), pattern };
        let (text, source, registry) =
            (rule.pattern.to_string(), self.private.source(login), rule.pattern.registry().clone());
        self.change_private(|rules| {
            rules.retain(|known| known.pattern != rule.pattern);
            rules.push(rule);
            if rules.len() > RULES_MAX {
                return Err(invalid(format!("there are at most {RULES_MAX} rules about private images")));
            }
            Ok(())
        })
        .await?;
        let trouble = has_login(&source, &registry).await.err();
        self.note_trouble(text, trouble.clone());
        self.refresh().await;
        Ok(trouble.map(|trouble| problem(&Barred::Login(trouble), registry.as_str(), login)))
    }

    /// Takes a permission back.
    pub(crate) async fn private_remove(self: &Arc<Self>, pattern: &str) -> Result<(), ApiError> {
        let known: Option<PrivatePattern> = pattern.parse().ok();
        self.change_private(|rules| {
            let before = rules.len();
            rules.retain(|rule| Some(&rule.pattern) != known.as_ref());
            if rules.len() == before {
                let message = format!("there is no rule about private images for {pattern}");
                return Err(convert::not_held(message, "See `sampan private`."));
            }
            Ok(())
        })
        .await?;
        self.refresh().await;
        Ok(())
    }

    /// Looks for every login again and lets those that failed be tried at once.
    pub(crate) async fn private_retry(self: &Arc<Self>) {
        let rules = self.private.state().rules.clone();
        for rule in rules {
            let trouble = has_login(&self.private.source(rule.login), rule.pattern.registry()).await.err();
            self.note_trouble(rule.pattern.to_string(), trouble);
        }
        self.mirror.try_logins_again().await;
        self.refresh().await;
    }

    fn note_trouble(&self, pattern: String, trouble: Option<LoginTrouble>) {
        let mut state = self.private.state();
        match trouble {
            Some(trouble) => drop(state.troubles.insert(pattern, trouble)),
            None => drop(state.troubles.remove(&pattern)),
        }
    }

    async fn change_private(
        &self,
        change: impl FnOnce(&mut Vec<Rule>) -> Result<(), ApiError>,
    ) -> Result<(), ApiError> {
        let _one_at_a_time = self.private.changing.lock().await;
        let mut rules = self.private.state().rules.clone();
        change(&mut rules)?;
        rules.sort_by_key(|rule| rule.pattern.to_string());
        let (folder, saved) = (self.config.state_dir.clone(), rules.clone());
        let written = tokio::task::spawn_blocking(move || file::save(&folder, &saved)).await;
        if let Ok(Err(error)) = written {
            let next_step = Some("Check the rights and the free space of the state folder.".into());
            let message = format!("the rules about private images cannot be written: {error}");
            return Err(ApiError { code: Code::Store, message, next_step });
        }
        self.private.state().rules = rules;
        self.enforce_private();
        Ok(())
    }
}

/// From now on a crash of this process leaves no copy of its memory (SECURITY.md R78).
fn leave_no_core() {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let none = Rlimit { current: Some(0), maximum: getrlimit(Resource::Core).maximum };
        // Lowering one's own limit is always allowed.
        let _ = setrlimit(Resource::Core, none);
    }
}

/// Why a private image is not answered, for people.
fn problem(barred: &Barred, registry: &str, login: LoginKind) -> PrivateProblem {
    let (why, about, next_step) = match barred {
        Barred::NotAllowed => (
            WhyPrivate::NotAllowed,
            None,
            "Docker fetches it itself; `sampan private allow` lets Sampan do it.".into(),
        ),
        Barred::NoAccess => (
            WhyPrivate::NoAccess,
            None,
            format!("Check the name, and that the account you log in to {registry} with may pull it."),
        ),
        Barred::NotHere => (WhyPrivate::Shared, None, "Docker fetches it itself, with its own login.".into()),
        Barred::Unasked => (WhyPrivate::Unasked, None, "Try again when the registry can be reached.".into()),
        Barred::Login(trouble) => of_login(trouble, registry, login),
    };
    PrivateProblem { why, about, message: barred.to_string(), next_step }
}

fn of_login(
    trouble: &LoginTrouble,
    registry: &str,
    login: LoginKind,
) -> (WhyPrivate, Option<String>, String) {
    let again = || match login {
        LoginKind::Docker => format!("Run `docker login {registry}`, then `sampan private retry`."),
        LoginKind::Keyring => {
            format!("Run `sampan private login {registry} --username NAME`, then `sampan private retry`.")
        }
    };
    let helper = |name: &str| {
        format!(
            "Check `docker-credential-{name}`, or run `docker login {registry}`, then `sampan private retry`."
        )
    };
    match trouble {
        LoginTrouble::None(_) => (WhyPrivate::NoLogin, Some(registry.to_owned()), again()),
        LoginTrouble::Unreadable(path) => (
            WhyPrivate::ConfigUnreadable,
            Some(path.display().to_string()),
            "Mend the file, then run `sampan private retry`.".into(),
        ),
        LoginTrouble::HelperMissing(name) => (WhyPrivate::HelperMissing, Some(name.clone()), helper(name)),
        LoginTrouble::HelperFailed(name) => (WhyPrivate::HelperFailed, Some(name.clone()), helper(name)),
        LoginTrouble::HelperSlow(name) => (WhyPrivate::HelperSlow, Some(name.clone()), helper(name)),
        LoginTrouble::HelperOutput(name) => (WhyPrivate::HelperOutput, Some(name.clone()), helper(name)),
        LoginTrouble::Unusable(_) => (WhyPrivate::LoginUnusable, Some(registry.to_owned()), again()),
        LoginTrouble::Refused => (WhyPrivate::LoginRefused, Some(registry.to_owned()), again()),
        LoginTrouble::Realm(host) => (
            WhyPrivate::OtherRealm,
            Some(host.clone()),
            format!(
                "If {host} is its token server, allow it again with `--realm {host}`; else tell who runs {registry}."
            ),
        ),
        LoginTrouble::PlainHttp => (
            WhyPrivate::PlainHttp,
            Some(registry.to_owned()),
            format!("Set an https address for {registry}; Docker can fetch it itself meanwhile."),
        ),
        LoginTrouble::Elsewhere(_) => (
            WhyPrivate::OtherServer,
            Some(registry.to_owned()),
            format!("Set {registry}'s own address as its upstream, or leave its private images to Docker."),
        ),
        LoginTrouble::Keyring => (
            WhyPrivate::NoKeyring,
            None,
            "Unlock the keyring, or use the login Docker has: `sampan private allow PATTERN --login docker`."
                .into(),
        ),
        LoginTrouble::Withdrawn => {
            (WhyPrivate::Withdrawn, None, "Allow it again, or leave it to Docker.".into())
        }
    }
}

/// Sampan's own logins for one registry, in the system's keyring. For the command line: a password never passes the socket.
#[derive(Debug)]
pub struct OwnLogins(sampan_oci::RegistryName);

impl OwnLogins {
    /// For a registry, by the name it has in image names.
    /// # Errors
    /// That it is none.
    pub fn of(registry: &str) -> Result<Self, sampan_oci::InvalidName> {
        registry.parse().map(Self)
    }

    /// Keeps a login, in place of one that is there.
    /// # Errors
    /// [`LoginTrouble`]: there is no keyring, or no registry takes such a login.
    pub async fn keep(&self, user: &str, secret: sampan_upstream::Secret) -> Result<(), LoginTrouble> {
        sampan_upstream::keep_own_login(&self.0, user, secret).await
    }

    /// Forgets it. Returns whether there was one.
    /// # Errors
    /// [`LoginTrouble`]: there is no keyring.
    pub async fn forget(&self) -> Result<bool, LoginTrouble> {
        sampan_upstream::forget_own_login(&self.0).await
    }
}
