//! What the tray shows, as plain data: decided here without a desktop, applied by [`tray`](crate::tray).

use jiff::{SignedDuration, Zoned};

use sampan_desktop::engine::Locale;
use sampan_desktop::engine::api::{MirrorState, NotKeeping, Pull, PullState, Snapshot, SpeedLimit};

/// A menu longer than this hides what it is for.
const PULLS_MAX: usize = 3;
/// The hour at which a pause "until tomorrow" ends: after any night, before any work.
const MORNING_HOUR: i8 = 6;

/// The tray at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tray {
    pub(crate) icon: Icon,
    pub(crate) items: Vec<Item>,
}

/// One shape for each state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Icon {
    Serving,
    Working,
    Paused,
    Attention,
    Off,
}

/// One line of the menu.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    /// Says something; cannot be chosen.
    Line(String),
    /// Does something.
    Choice(Action, String),
    /// Switches something that holds now, or does not.
    Switch(Action, String, bool),
    /// Opens a second menu.
    Submenu(String, Vec<(Action, String)>),
    /// Opens a second menu of which one line holds: the one of that index.
    OneOf(String, Vec<(Action, String)>, usize),
    Separator,
}

/// What a person can choose, here or by other ways that lead to the shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Open,
    Setup,
    Undo,
    Pause(PauseFor),
    Resume,
    Limit(Limit),
    /// Go offline, or online again.
    Offline(bool),
    Quit,
}

/// The speed limits to choose from. Any other is set by the window's page or by `sampan limit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    Unlimited,
    /// Leaves room for a call.
    Low,
    Middle,
    High,
    /// Another one, as it is.
    Custom,
}

impl Limit {
    const OFFERED: [Self; 4] = [Self::Unlimited, Self::Low, Self::Middle, Self::High];

    /// The choice that stands for `limit`, in bytes per second.
    fn of(limit: Option<u64>) -> Self {
        let stands = |offered: &Self| match (offered.change(), limit) {
            (Some(SpeedLimit::Off), None) => true,
            (Some(SpeedLimit::BytesPerSecond(offered)), Some(limit)) => offered == limit,
            (Some(_) | None, _) => false,
        };
        Self::OFFERED.into_iter().find(stands).unwrap_or(Self::Custom)
    }

    /// What choosing it changes; `None`: nothing, it is the one in force.
    pub(crate) fn change(self) -> Option<SpeedLimit> {
        match self {
            Self::Unlimited => Some(SpeedLimit::Off),
            Self::Low => Some(SpeedLimit::BytesPerSecond(250_000)),
            Self::Middle => Some(SpeedLimit::BytesPerSecond(1_000_000)),
            Self::High => Some(SpeedLimit::BytesPerSecond(5_000_000)),
            Self::Custom => None,
        }
    }
}

/// How long a pause lasts. There is no endless one: people forget them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PauseFor {
    QuarterHour,
    Hour,
    UntilTomorrow,
}

/// Names for menus that tell a choice by its name; Linux tells it by the item itself.
#[cfg(any(not(target_os = "linux"), test))]
impl Action {
    const ALL: [Self; 15] = [
        Self::Open,
        Self::Setup,
        Self::Undo,
        Self::Pause(PauseFor::QuarterHour),
        Self::Pause(PauseFor::Hour),
        Self::Pause(PauseFor::UntilTomorrow),
        Self::Resume,
        Self::Limit(Limit::Unlimited),
        Self::Limit(Limit::Low),
        Self::Limit(Limit::Middle),
        Self::Limit(Limit::High),
        Self::Limit(Limit::Custom),
        Self::Offline(true),
        Self::Offline(false),
        Self::Quit,
    ];

    /// Its name in the native menu.
    pub(crate) fn id(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Setup => "setup",
            Self::Undo => "undo",
            Self::Pause(PauseFor::QuarterHour) => "pause-15min",
            Self::Pause(PauseFor::Hour) => "pause-1h",
            Self::Pause(PauseFor::UntilTomorrow) => "pause-tomorrow",
            Self::Resume => "resume",
            Self::Limit(Limit::Unlimited) => "limit-off",
            Self::Limit(Limit::Low) => "limit-low",
            Self::Limit(Limit::Middle) => "limit-middle",
            Self::Limit(Limit::High) => "limit-high",
            Self::Limit(Limit::Custom) => "limit-custom",
            Self::Offline(true) => "offline",
            Self::Offline(false) => "online",
            Self::Quit => "quit",
        }
    }

    /// The action of that name; `None` for lines that do nothing.
    pub(crate) fn parse(id: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.id() == id)
    }
}

impl PauseFor {
    /// Seconds from `now` until the pause ends.
    pub(crate) fn seconds(self, now: &Zoned) -> u32 {
        let length = match self {
            Self::QuarterHour => SignedDuration::from_mins(15),
            Self::Hour => SignedDuration::from_hours(1),
            Self::UntilTomorrow => now
                .tomorrow()
                .and_then(|tomorrow| tomorrow.with().hour(MORNING_HOUR).minute(0).second(0).build())
                .map_or(SignedDuration::from_hours(24), |morning| now.duration_until(&morning)),
        };
        u32::try_from(length.as_secs()).unwrap_or(u32::MAX)
    }
}

/// The tray while the engine is not serving: starting, or on its way out.
pub(crate) fn off(locale: Locale) -> Tray {
    let text = |key| locale.text(key, &[]);
    Tray {
        icon: Icon::Off,
        items: vec![
            Item::Line(text("tray.state.off")),
            Item::Separator,
            Item::Choice(Action::Quit, text("tray.quit")),
        ],
    }
}

/// The tray for `snapshot`: state first, then numbers, then pulls, then what can be done.
pub(crate) fn serving(snapshot: &Snapshot, locale: Locale) -> Tray {
    let text = |key| locale.text(key, &[]);
    let (icon, state) = match snapshot.mirror.state {
        // "Serving Docker" would be a guess while no engine has ever asked.
        MirrorState::Serving if snapshot.last_used.is_none() => (Icon::Serving, "header.ready"),
        MirrorState::Serving => (Icon::Serving, "tray.state.serving"),
        MirrorState::Working => (Icon::Working, "tray.state.working"),
        MirrorState::Paused => (Icon::Paused, "tray.state.paused"),
        MirrorState::Attention => (Icon::Attention, "tray.state.attention"),
    };
    let saved = size_text(snapshot.today.saved_bytes, locale);
    let mut items = vec![Item::Line(text(state))];
    if snapshot.settings.offline {
        items.push(Item::Line(text("tray.is_offline")));
    }
    items.push(Item::Line(locale.text("tray.saved_today", &[("size", &saved)])));
    let active = snapshot.pulls.iter().filter(|pull| pull.state == PullState::Active);
    items.extend(active.take(PULLS_MAX).map(|pull| Item::Line(pull_text(pull, locale))));
    items.push(Item::Separator);
    // A paused mirror may show another state (a pull flows through it): it can be resumed all the same.
    let paused = icon == Icon::Paused || snapshot.cache.not_keeping == Some(NotKeeping::Paused);
    items.push(if paused {
        Item::Choice(Action::Resume, text("tray.resume"))
    } else {
        Item::Submenu(
            text("tray.pause"),
            vec![
                (Action::Pause(PauseFor::QuarterHour), text("tray.pause_15min")),
                (Action::Pause(PauseFor::Hour), text("tray.pause_1h")),
                (Action::Pause(PauseFor::UntilTomorrow), text("tray.pause_tomorrow")),
            ],
        )
    });
    items.push(limits(snapshot.settings.speed_limit, locale));
    let offline = snapshot.settings.offline;
    items.push(Item::Switch(Action::Offline(!offline), text("tray.offline"), offline));
    items.push(Item::Choice(Action::Open, text("tray.open")));
    let setup = if snapshot.docker_drift.is_some() { "tray.docker_drift" } else { "tray.docker_setup" };
    items.push(Item::Choice(Action::Setup, text(setup)));
    if snapshot.docker_set_up {
        items.push(Item::Choice(Action::Undo, text("tray.docker_undo")));
    }
    items.push(Item::Separator);
    items.push(Item::Choice(Action::Quit, text("tray.quit")));
    Tray { icon, items }
}

/// The menu of speed limits; the one in force is marked, and has a line of its own where it is none of those offered.
fn limits(limit: Option<u64>, locale: Locale) -> Item {
    let current = Limit::of(limit);
    let mut choices = Limit::OFFERED.to_vec();
    if current == Limit::Custom {
        choices.push(current);
    }
    let speed = |bytes: u64| format!("{}/s", size_text(i64::try_from(bytes).unwrap_or(i64::MAX), locale));
    let label = |choice: Limit| match choice.change() {
        Some(SpeedLimit::Off) => locale.text("tray.unlimited", &[]),
        Some(SpeedLimit::BytesPerSecond(bytes)) => speed(bytes),
        None => speed(limit.unwrap_or_default()),
    };
    let marked = choices.iter().position(|choice| *choice == current).unwrap_or(0);
    let lines = choices.iter().map(|choice| (Action::Limit(*choice), label(*choice))).collect();
    Item::OneOf(locale.text("tray.limit", &[]), lines, marked)
}

fn pull_text(pull: &Pull, locale: Locale) -> String {
    let progress = match pull.size_bytes {
        Some(size) if size > 0 => format!("{}%", percent(pull.done_bytes, size)),
        Some(_) | None => {
            let done = i64::try_from(pull.done_bytes).unwrap_or(i64::MAX);
            format!("≥ {}", size_text(done, locale))
        }
    };
    locale.text("tray.pull_line", &[("image", &image_text(pull)), ("percent", &progress)])
}

/// The image as a person types it: without what Docker adds by itself.
fn image_text(pull: &Pull) -> String {
    let name = pull.image.strip_prefix("docker.io/").unwrap_or(&pull.image);
    let name = name.strip_prefix("library/").unwrap_or(name);
    match pull.reference.split_once(':') {
        Some((algorithm, hex)) => format!("{name}@{algorithm}:{}…", hex.get(..12).unwrap_or(hex)),
        None => format!("{name}:{}", pull.reference),
    }
}

/// A share as the window writes it: not 100 before it is whole, not 0 once something is there.
fn percent(part: u64, whole: u64) -> u128 {
    let (part, whole) = (u128::from(part.min(whole)), u128::from(whole));
    let rounded = (part * 100 + whole / 2) / whole;
    rounded.min(if part < whole { 99 } else { 100 }).max(u128::from(part > 0))
}

/// A size as the window writes it: decimal units, at most one decimal below 100. Negative for a loss.
fn size_text(bytes: i64, locale: Locale) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let magnitude = u128::from(bytes.unsigned_abs());
    let sign = if bytes < 0 { "-" } else { "" };
    let (mut unit, mut name) = (1, 0);
    // 999.5 would be written as 1000 of its unit.
    while magnitude * 2 >= unit * 1999 && name + 1 < UNITS.len() {
        (unit, name) = (unit * 1000, name + 1);
    }
    let name = UNITS[name];
    let tenths = (magnitude * 10 + unit / 2) / unit;
    if unit > 1 && magnitude < unit * 100 && tenths % 10 > 0 {
        format!("{sign}{}{}{} {name}", tenths / 10, locale.decimal_mark(), tenths % 10)
    } else {
        format!("{sign}{} {name}", (magnitude + unit / 2) / unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trouble::tests::{pull, snapshot};

    const EN: Locale = Locale::ALL[0];
    const VI: Locale = Locale::ALL[1];

    fn lines(tray: &Tray) -> Vec<&str> {
        let lines = tray.items.iter().map_while(|item| match item {
            Item::Line(text) => Some(text.as_str()),
            Item::Choice(..) | Item::Switch(..) | Item::Submenu(..) | Item::OneOf(..) | Item::Separator => {
                None
            }
        });
        lines.collect()
    }

    fn actions(tray: &Tray) -> Vec<Action> {
        let actions = tray.items.iter().flat_map(|item| match item {
            Item::Choice(action, _) | Item::Switch(action, ..) => vec![*action],
            Item::Submenu(_, choices) | Item::OneOf(_, choices, _) => {
                choices.iter().map(|(action, _)| *action).collect()
            }
            Item::Line(_) | Item::Separator => Vec::new(),
        });
        actions.collect()
    }

    #[test]
    fn each_state_has_a_shape_and_a_first_line_of_its_own() {
        let table = [
            (MirrorState::Serving, Icon::Serving, "tray.state.serving"),
            (MirrorState::Working, Icon::Working, "tray.state.working"),
            (MirrorState::Paused, Icon::Paused, "tray.state.paused"),
            (MirrorState::Attention, Icon::Attention, "tray.state.attention"),
        ];
        for locale in Locale::ALL {
            for (state, icon, key) in table {
                let mut snapshot = snapshot();
                snapshot.mirror.state = state;
                snapshot.last_used = Some(0);
                let tray = serving(&snapshot, locale);
                assert_eq!(tray.icon, icon);
                assert_eq!(lines(&tray)[0], locale.text(key, &[]), "{state:?} in {locale:?}");
            }
        }
    }

    #[test]
    fn every_text_of_the_menu_exists_in_both_languages() {
        let mut snapshot = snapshot();
        snapshot.pulls = vec![pull("docker.io/library/node", "20", Some(100), 62)];
        snapshot.docker_set_up = true;
        for locale in Locale::ALL {
            let mut texts = Vec::new();
            let states =
                [MirrorState::Serving, MirrorState::Working, MirrorState::Paused, MirrorState::Attention];
            for state in states {
                snapshot.mirror.state = state;
                texts.extend(serving(&snapshot, locale).items);
            }
            texts.extend(off(locale).items);
            for item in &texts {
                let shown = format!("{item:?}");
                assert!(!shown.contains("tray."), "{locale:?} has no text for {shown}");
                assert!(!shown.contains("%{"), "a value has no place in {shown} ({locale:?})");
            }
        }
    }

    #[test]
    fn a_set_up_that_somebody_else_changed_is_said_where_it_is_mended() {
        let mut snapshot = snapshot();
        snapshot.docker_drift = Some(sampan_app::api::DockerDrift { what: Vec::new(), since: 0 });
        let tray = serving(&snapshot, EN);
        assert!(
            tray.items.contains(&Item::Choice(Action::Setup, "Docker's set-up was changed …".into())),
            "{:?}",
            tray.items
        );
    }

    #[test]
    fn only_a_docker_that_is_set_up_can_be_taken_back() {
        let mut snapshot = snapshot();
        assert!(!actions(&serving(&snapshot, EN)).contains(&Action::Undo), "there is nothing to take back");
        snapshot.docker_set_up = true;
        let undo = Item::Choice(Action::Undo, "Stop using Sampan for Docker …".into());
        assert!(serving(&snapshot, EN).items.contains(&undo), "{:?}", serving(&snapshot, EN).items);
    }

    #[test]
    fn a_paused_mirror_offers_to_resume_and_another_one_to_pause() {
        let mut paused = snapshot();
        paused.mirror.state = MirrorState::Paused;
        let mut flowing = snapshot();
        flowing.mirror.state = MirrorState::Working;
        flowing.cache.not_keeping = Some(NotKeeping::Paused);
        for snapshot in [paused, flowing] {
            let tray = serving(&snapshot, EN);
            let mut actions = actions(&tray);
            actions.retain(|action| !matches!(action, Action::Limit(_) | Action::Offline(_)));
            assert_eq!(actions, [Action::Resume, Action::Open, Action::Setup, Action::Quit]);
        }
        let tray = serving(&snapshot(), EN);
        assert!(actions(&tray).contains(&Action::Pause(PauseFor::Hour)));
        assert!(!actions(&tray).contains(&Action::Resume), "there is nothing to resume");
    }

    #[test]
    fn offline_is_said_and_the_switch_turns_what_holds() {
        let mut snapshot = snapshot();
        for locale in Locale::ALL {
            for offline in [false, true] {
                snapshot.settings.offline = offline;
                let tray = serving(&snapshot, locale);
                let switch =
                    Item::Switch(Action::Offline(!offline), locale.text("tray.offline", &[]), offline);
                assert!(tray.items.contains(&switch), "{:?}", tray.items);
                let said = lines(&tray).contains(&locale.text("tray.is_offline", &[]).as_str());
                assert_eq!(said, offline, "{:?}", tray.items);
            }
        }
    }

    #[test]
    fn the_limit_in_force_is_marked_and_a_custom_one_has_a_line() {
        let table: [(Option<u64>, &[&str], usize); 6] = [
            (None, &["Unlimited", "250 kB/s", "1 MB/s", "5 MB/s"], 0),
            (Some(250_000), &["Unlimited", "250 kB/s", "1 MB/s", "5 MB/s"], 1),
            (Some(1_000_000), &["Unlimited", "250 kB/s", "1 MB/s", "5 MB/s"], 2),
            (Some(5_000_000), &["Unlimited", "250 kB/s", "1 MB/s", "5 MB/s"], 3),
            (Some(1_500_000), &["Unlimited", "250 kB/s", "1 MB/s", "5 MB/s", "1.5 MB/s"], 4),
            (Some(10_000), &["Unlimited", "250 kB/s", "1 MB/s", "5 MB/s", "10 kB/s"], 4),
        ];
        for (limit, labels, marked) in table {
            let mut snapshot = snapshot();
            snapshot.settings.speed_limit = limit;
            let shown = serving(&snapshot, EN).items.into_iter().find_map(|item| match item {
                Item::OneOf(title, choices, marked) => Some((title, choices, marked)),
                Item::Line(_) | Item::Choice(..) | Item::Switch(..) | Item::Submenu(..) | Item::Separator => {
                    None
                }
            });
            let (title, choices, at) = shown.expect("a menu of limits");
            let texts: Vec<_> = choices.iter().map(|(_, text)| text.as_str()).collect();
            assert_eq!((title.as_str(), texts.as_slice(), at), ("Speed limit", labels, marked), "{limit:?}");
            let Action::Limit(current) = choices[at].0 else { panic!("{:?} sets no limit", choices[at].0) };
            let change = limit.map_or(SpeedLimit::Off, SpeedLimit::BytesPerSecond);
            assert_eq!(current.change().unwrap_or(change), change, "what is marked changes nothing");
        }
    }

    #[test]
    fn at_most_three_pulls_are_shown_and_only_those_that_go_on() {
        let mut snapshot = snapshot();
        snapshot.pulls =
            (0..5).map(|n| pull("docker.io/library/node", &n.to_string(), Some(100), 10)).collect();
        snapshot.pulls[0].state = PullState::Complete;
        let tray = serving(&snapshot, EN);
        let lines = lines(&tray);
        assert_eq!(lines.len(), 2 + PULLS_MAX, "state, savings, three pulls: {lines:?}");
        assert!(lines[2].contains("node:1"), "the ended pull is left out: {lines:?}");
    }

    #[test]
    fn a_pull_is_named_as_people_type_it() {
        let digest = format!("sha256:{}", "0123456789abcdef".repeat(4));
        let table = [
            ("docker.io/library/nginx", "1.27", "nginx:1.27"),
            ("docker.io/grafana/grafana", "latest", "grafana/grafana:latest"),
            ("ghcr.io/library/x", "v1", "ghcr.io/library/x:v1"),
            ("docker.io/library/nginx", digest.as_str(), "nginx@sha256:0123456789ab…"),
        ];
        for (image, reference, shown) in table {
            assert_eq!(image_text(&pull(image, reference, None, 0)), shown);
        }
    }

    #[test]
    fn progress_never_says_all_before_it_is_all() {
        let table = [
            (Some(1000), 0, "0%"),
            (Some(1000), 1, "1%"),
            (Some(1000), 626, "63%"),
            (Some(1000), 999, "99%"),
            (Some(1000), 1000, "100%"),
            (Some(u64::MAX), u64::MAX - 1, "99%"),
            (Some(0), 0, "≥ 0 B"),
            (None, 12_345_678, "≥ 12.3 MB"),
        ];
        for (size, done, shown) in table {
            let text = pull_text(&pull("docker.io/library/node", "20", size, done), EN);
            let wanted = EN.text("tray.pull_line", &[("image", "node:20"), ("percent", shown)]);
            assert_eq!(text, wanted, "{done} of {size:?}");
        }
    }

    #[test]
    fn sizes_are_written_as_the_window_writes_them() {
        let table = [
            (0, EN, "0 B"),
            (999, EN, "999 B"),
            (1_000, EN, "1 kB"),
            (999_499, EN, "999 kB"),
            (999_500, EN, "1 MB"),
            (3_290_000_000, EN, "3.3 GB"),
            (3_290_000_000, VI, "3,3 GB"),
            (99_960_000, EN, "100 MB"),
            (123_456_789, EN, "123 MB"),
            (-5_100_000, EN, "-5.1 MB"),
            (i64::MIN, EN, "-9223372 TB"),
        ];
        for (bytes, locale, shown) in table {
            assert_eq!(size_text(bytes, locale), shown);
        }
    }

    #[test]
    fn an_action_is_found_again_by_its_name() {
        for action in Action::ALL {
            assert_eq!(Action::parse(action.id()), Some(action));
        }
        assert_eq!(Action::parse("line-0"), None, "a line that only says something does nothing");
    }

    #[test]
    fn a_pause_until_tomorrow_ends_in_the_morning_whatever_the_clocks_do() {
        let table = [
            ("2026-11-20T17:00:00+07:00[Asia/Ho_Chi_Minh]", 13 * 3600),
            ("2026-11-20T23:59:30+07:00[Asia/Ho_Chi_Minh]", 6 * 3600 + 30),
            ("2026-11-20T00:30:00+07:00[Asia/Ho_Chi_Minh]", 29 * 3600 + 1800),
            // The night in which the clocks go forward is an hour shorter.
            ("2026-03-28T22:00:00+01:00[Europe/Berlin]", 7 * 3600),
        ];
        for (now, seconds) in table {
            let now: Zoned = now.parse().unwrap();
            assert_eq!(PauseFor::UntilTomorrow.seconds(&now), seconds, "from {now}");
            assert_eq!(PauseFor::QuarterHour.seconds(&now), 900);
            assert_eq!(PauseFor::Hour.seconds(&now), 3600);
        }
    }
}
