//! What Sampan does with what it is told.

use super::*;
use crate::api::{Metered, QuietHours, Quota, Theme, Verify};

struct Home {
    dir: tempfile::TempDir,
}

impl Home {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn folders(&self) -> Folders {
        Folders {
            config: Some(self.path("config")),
            cache: Some(self.path("cache")),
            state: Some(self.path("state")),
        }
    }

    fn load(&self, flags: Flags) -> Result<Config, ConfigError> {
        Config::load_from(flags, self.folders())
    }

    /// Loads with a configuration file of these contents, named by --config.
    fn load_file(&self, text: &str) -> Result<Config, ConfigError> {
        let file = self.path("given.toml");
        std::fs::write(&file, text).unwrap();
        self.load(Flags { config: Some(file), ..Flags::default() })
    }
}

fn upstream(text: &str) -> (RegistryName, Url) {
    parse_upstream(text).unwrap()
}

#[test]
fn told_nothing_it_mirrors_the_well_known_registries_on_loopback_only() {
    let home = Home::new();
    let config = home.load(Flags::default()).unwrap();
    assert_eq!(config.listen.to_string(), LISTEN);
    assert_eq!(config.upstreams[0], upstream("docker.io=https://registry-1.docker.io"), "Docker Hub first");
    let others: Vec<_> = config.upstreams[1..].iter().map(|(name, url)| format!("{name}={url}")).collect();
    let expected = ["ghcr.io", "quay.io", "gcr.io", "registry.k8s.io", "mcr.microsoft.com", "public.ecr.aws"];
    assert_eq!(others, expected.map(|name| format!("{name}=https://{name}/")), "each at its own address");
    assert_eq!(
        (config.cache_dir.clone(), config.state_dir.clone()),
        (home.path("cache"), home.path("state"))
    );
    assert_eq!(config.revalidate_timeout, Duration::from_secs(3));
    assert_eq!((config.connections, config.outage_wait), (32, Duration::from_mins(10)));
    assert_eq!(config.free_space_floor_bytes, None, "it is found out from the disk");
    assert_eq!(config.settings, Settings::default());
    assert_eq!(config.warnings(), Vec::<String>::new(), "the defaults need no warning");
    assert!(!config.state_dir.exists(), "loading creates nothing");
}

#[test]
fn the_file_wins_over_defaults_and_flags_win_over_the_file() {
    let home = Home::new();
    let file = home.path("given.toml");
    let text = r#"
        listen = "127.0.0.1:1111"
        cache_dir = "/somewhere/cache"
        state_dir = "beside"
        revalidate_timeout = "1500ms"
        connections = 16
        outage_wait = "0s"
        free_space_floor = "2 GB"
        quota = "20 GB"
        max_age_days = 90
        verify = "always"
        [upstreams]
        "docker.io" = "http://127.0.0.1:5601"
        "ghcr.io" = "https://ghcr.io"
    "#;
    std::fs::write(&file, text).unwrap();
    let flags = Flags {
        config: Some(file.clone()),
        listen: Some("127.0.0.1:2222".parse().unwrap()),
        connections: Some(64),
        upstream: vec![upstream("ghcr.io=https://mirror.example"), upstream("quay.io=https://quay.io")],
        ..Flags::default()
    };
    let config = home.load(flags).unwrap();
    assert_eq!(config.listen.port(), 2222, "the flag wins");
    assert_eq!(config.cache_dir, PathBuf::from("/somewhere/cache"), "the file wins over the default");
    assert_eq!(
        config.state_dir,
        home.path("beside"),
        "relative to the file, not to where Sampan was started"
    );
    assert_eq!(config.revalidate_timeout, Duration::from_millis(1500));
    assert_eq!(config.connections, 64, "the flag wins");
    assert_eq!(config.outage_wait, Duration::ZERO, "an outage need not be waited out");
    assert_eq!(config.free_space_floor_bytes, Some(2_000_000_000));
    let cache = (config.settings.quota, config.settings.max_age_days, config.settings.verify);
    assert_eq!(cache, (Quota::Bytes(20_000_000_000), Some(90), Verify::Always));
    assert_eq!(config.config_file, Some(file));
    let expected = [
        upstream("docker.io=http://127.0.0.1:5601"),
        upstream("ghcr.io=https://mirror.example"),
        upstream("quay.io=https://quay.io"),
    ];
    assert_eq!(config.upstreams[..3], expected, "each source replaces registry by registry");
    assert_eq!(config.upstreams.len(), 7, "the other well-known ones follow, each once");
}

#[test]
fn the_file_in_the_configuration_folder_is_found_without_a_flag() {
    let home = Home::new();
    std::fs::create_dir(home.path("config")).unwrap();
    std::fs::write(home.path("config").join("config.toml"), "listen = \"127.0.0.1:3333\"").unwrap();
    assert_eq!(home.load(Flags::default()).unwrap().listen.port(), 3333);
}

#[test]
fn a_wrong_file_is_refused_with_the_place_and_what_to_do() {
    let home = Home::new();
    let table: [(&str, (usize, usize), &str); 27] = [
        ("\n\nlisen = \"127.0.0.1:1\"", (3, 1), "Did you mean `listen`?"),
        ("upstream = {}", (1, 1), "Did you mean `upstreams`?"),
        ("cache-dir = \"/x\"", (1, 1), "Did you mean `cache_dir`?"),
        ("zzz = 1", (1, 1), "There are `listen`"),
        ("listen = \"127.0.0.1\"", (1, 10), "such as 127.0.0.1:7267"),
        ("listen = \"127.0.0.1:70000\"", (1, 10), "65535"),
        ("listen = 7267", (1, 10), "Write listen = \"127.0.0.1:7267\"."),
        ("cache_dir = \"~/cache\"", (1, 13), "whole path"),
        ("revalidate_timeout = \"1h\"", (1, 22), "100ms to 60s"),
        ("revalidate_timeout = \"-5s\"", (1, 22), "100ms to 60s"),
        ("connections = 0", (1, 15), "1 to 64"),
        ("connections = 65", (1, 15), "1 to 64"),
        ("connections = \"32\"", (1, 15), "Write connections = 32."),
        ("outage_wait = \"25h\"", (1, 15), "0s to 24h"),
        ("outage_wait = 600", (1, 15), "Write outage_wait = \"10m\"."),
        ("free_space_floor = \"much\"", (1, 20), "1 GiB"),
        ("quota = \"99 MB\"", (1, 9), "100 MB or more"),
        ("quota = 5", (1, 9), "Write quota = \"50 GB\"."),
        ("max_age_days = 0", (1, 16), "1 to 3650"),
        ("max_age_days = \"90\"", (1, 16), "Write max_age_days = 90."),
        ("verify = \"never\"", (1, 10), "daily, or always"),
        ("max_age = 90", (1, 1), "Did you mean `max_age_days`?"),
        ("[upstreams]\n\"docker.io\" = \"ftp://x\"", (2, 15), "https://"),
        ("[upstreams]\n\"Docker io\" = \"https://x\"", (2, 1), "lowercase"),
        ("[upstreams]\ndocker.io = \"https://x\"", (2, 1), "in quotes"),
        ("listen = \"127.0.0.1:1\"\nlisten = \"127.0.0.1:2\"", (2, 1), "TOML"),
        ("listen = ", (1, 10), "TOML"),
    ];
    for (text, place, advice) in table {
        let error = home.load_file(text).unwrap_err();
        let shown = error.to_string();
        let ConfigError::Invalid { line, column, .. } = error else { panic!("{text:?} gave {shown}") };
        assert_eq!((line, column), place, "the place in {text:?}: {shown}");
        assert!(shown.contains(advice), "{text:?} should advise {advice:?}: {shown}");
        assert!(shown.contains("given.toml:"), "the file is named: {shown}");
    }
}

#[test]
fn a_column_is_counted_in_characters() {
    let error = Home::new().load_file("listen = \"ô\" \nôi = 1").unwrap_err().to_string();
    assert!(error.contains("given.toml:"), "a file in Vietnamese is refused, not a panic: {error}");
}

#[test]
fn a_file_that_was_named_must_be_there() {
    let home = Home::new();
    let error = home.load(Flags { config: Some(home.path("none.toml")), ..Flags::default() }).unwrap_err();
    assert!(matches!(error, ConfigError::Unreadable { .. }), "{error}");
}

#[test]
fn an_upstream_is_an_origin_and_nothing_else() {
    for good in ["https://ghcr.io", "http://127.0.0.1:5601/", "https://[::1]:5000", "https://GHCR.io"] {
        assert!(parse_url(good).is_ok(), "{good} is an origin");
    }
    for bad in [
        "",
        "ghcr.io",
        "ftp://ghcr.io",
        "file:///etc/passwd",
        "https://",
        "https:ghcr.io",
        "https://ghcr.io/v2/",
        "https://ghcr.io/?a",
        "https://ghcr.io/#a",
        "https://me@ghcr.io",
        "https://me:secret@ghcr.io",
        "https://x:99999",
    ] {
        assert!(parse_url(bad).is_err(), "{bad:?} must be refused");
    }
    let told = parse_url("https://me:secret@ghcr.io").unwrap_err();
    assert!(!told.contains("secret"), "a password is not repeated: {told}");
}

#[test]
fn sampan_is_never_its_own_upstream() {
    let same = [
        ("127.0.0.1:7267", "http://127.0.0.1:7267"),
        ("127.0.0.1:7267", "http://localhost:7267"),
        ("127.0.0.1:7267", "http://127.1:7267"),
        ("127.0.0.1:7267", "http://a.localhost.:7267"),
        ("127.0.0.1:7267", "http://[::ffff:127.0.0.1]:7267"),
        ("127.0.0.1:7267", "http://0.0.0.0:7267"),
        ("0.0.0.0:7267", "http://127.0.0.1:7267"),
        ("[::1]:7267", "http://[::1]:7267"),
        ("127.0.0.1:80", "http://127.0.0.1"),
    ];
    let other = [
        ("127.0.0.1:7267", "http://127.0.0.1:5601"),
        ("127.0.0.1:7267", "http://127.0.0.2:7267"),
        ("127.0.0.1:7267", "https://team.example:7267"),
        ("127.0.0.1:0", "http://127.0.0.1:5601"),
    ];
    let home = Home::new();
    let load = |listen: &str, url: &str| {
        home.load(Flags {
            listen: Some(listen.parse().unwrap()),
            upstream: vec![upstream(&format!("docker.io={url}"))],
            ..Flags::default()
        })
    };
    for (listen, url) in same {
        let refused = load(listen, url).unwrap_err();
        assert!(matches!(refused, ConfigError::UpstreamIsSelf { .. }), "{url} is {listen}: {refused}");
    }
    for (listen, url) in other {
        assert!(load(listen, url).is_ok(), "{url} is not {listen}");
    }
}

#[test]
fn what_is_open_to_others_is_said() {
    let flags = Flags {
        listen: Some("0.0.0.0:7267".parse().unwrap()),
        upstream: vec![upstream("docker.io=http://mirror.example"), upstream("ghcr.io=http://127.0.0.1:1")],
        ..Flags::default()
    };
    let warnings = Home::new().load(flags).unwrap().warnings();
    assert_eq!(
        warnings.len(),
        2,
        "the address and the unencrypted upstream, not the loopback one: {warnings:?}"
    );
}

#[test]
fn without_a_home_the_folders_must_be_given() {
    let error = Config::load_from(Flags::default(), Folders::default()).unwrap_err();
    assert!(matches!(error, ConfigError::NoHome), "{error}");
    let flags = Flags {
        cache_dir: Some("/c".into()),
        state_dir: Some("/nonexistent-state".into()),
        ..Flags::default()
    };
    assert!(Config::load_from(flags, Folders::default()).is_ok(), "with folders no home is needed");
}

#[test]
fn settings_come_back_after_a_restart() {
    let home = Home::new();
    std::fs::create_dir(home.path("state")).unwrap();
    let config = home.load(Flags::default()).unwrap();
    assert_eq!(config.settings, Settings::default());
    let changed = Settings {
        language: Some("vi".into()),
        theme: Theme::Dark,
        speed_limit: Some(250_000),
        quota: Quota::Bytes(20_000_000_000),
        max_age_days: Some(90),
        verify: Verify::Always,
        offline: true,
        freshness: Vec::new(),
        quiet_hours: Some(QuietHours { from: 1320, to: 365 }),
        metered: Metered::On,
    };
    config.save_settings(&changed).unwrap();
    assert_eq!(home.load(Flags::default()).unwrap().settings, changed);
    let left: Vec<_> =
        std::fs::read_dir(home.path("state")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["settings.toml"], "nothing else stays behind");
}

#[test]
fn only_differences_are_saved_and_unknown_keys_stay() {
    let home = Home::new();
    std::fs::create_dir(home.path("state")).unwrap();
    let file = home.path("state").join("settings.toml");
    std::fs::write(&file, "# mine\nversion = 7\nfuture = [1, 2]\ntheme = \"sepia\"\nlanguage = \"vi\"\n")
        .unwrap();
    let config = home.load(Flags::default()).unwrap();
    let read = Settings { language: Some("vi".into()), ..Settings::default() };
    assert_eq!(config.settings, read, "a look of a newer version is the system's for now");
    config.save_settings(&Settings::default()).unwrap();
    let text = std::fs::read_to_string(&file).unwrap();
    assert_eq!(text, "# mine\nversion = 7\nfuture = [1, 2]\n", "defaults are not written, the rest stays");
}

#[test]
fn the_first_versions_file_still_loads() {
    let home = Home::new();
    std::fs::create_dir(home.path("state")).unwrap();
    let file = home.path("state").join("settings.toml");
    std::fs::write(&file, "version = 1\nlanguage = \"en\"\ntheme = \"light\"\n").unwrap();
    let settings = home.load(Flags::default()).unwrap().settings;
    let expected = Settings { language: Some("en".into()), theme: Theme::Light, ..Settings::default() };
    assert_eq!(settings, expected);
}

#[test]
fn what_a_person_changed_wins_over_the_file_and_what_they_did_not_follows_it() {
    let home = Home::new();
    std::fs::create_dir(home.path("state")).unwrap();
    let file = "quota = \"20 GB\"\nmax_age_days = 90\nverify = \"always\"\n";
    let config = home.load_file(file).unwrap();
    let changed = Settings { quota: Quota::Auto, max_age_days: None, ..config.settings.clone() };
    config.save_settings(&changed).unwrap();
    assert_eq!(home.load_file(file).unwrap().settings, changed, "automatic and off are choices too");
    let another = home.load_file("quota = \"30 GB\"\nverify = \"daily\"\n").unwrap().settings;
    assert_eq!((another.quota, another.verify), (Quota::Auto, Verify::Daily), "verify was not changed");

    config.save_settings(&config.unchanged).unwrap();
    let text = std::fs::read_to_string(home.path("state").join("settings.toml")).unwrap();
    assert_eq!(text, "version = 1\n", "what is as in the file is not written twice");
}

#[test]
fn a_quota_or_age_limit_nobody_can_have_chosen_is_as_if_not_written() {
    let home = Home::new();
    std::fs::create_dir(home.path("state")).unwrap();
    let file = home.path("state").join("settings.toml");
    for written in [
        "quota = 5",
        "quota = \"much\"",
        "quota = -1",
        "max_age_days = 0",
        "max_age_days = \"x\"",
        "verify = 1",
    ] {
        std::fs::write(&file, format!("version = 1\n{written}\n")).unwrap();
        assert_eq!(home.load(Flags::default()).unwrap().settings, Settings::default(), "{written}");
    }
}

#[test]
fn a_limit_nobody_can_have_chosen_is_none() {
    let home = Home::new();
    std::fs::create_dir(home.path("state")).unwrap();
    let file = home.path("state").join("settings.toml");
    let table = [
        ("10000", Some(10_000)),
        ("9999", None),
        ("0", None),
        ("-5", None),
        ("9223372036854775807", None),
        ("\"1 MB\"", None),
    ];
    for (written, limit) in table {
        std::fs::write(&file, format!("version = 1\nspeed_limit = {written}\n")).unwrap();
        assert_eq!(home.load(Flags::default()).unwrap().settings.speed_limit, limit, "{written}");
    }
}

#[test]
fn damaged_settings_cost_the_settings_not_the_start() {
    let home = Home::new();
    std::fs::create_dir(home.path("state")).unwrap();
    let file = home.path("state").join("settings.toml");
    for damage in [&b"theme = \"da"[..], &[0xff, 0xfe, 0x00]] {
        std::fs::write(&file, damage).unwrap();
        let config = home.load(Flags::default()).unwrap();
        assert_eq!(config.settings, Settings::default());
        config.save_settings(&Settings { theme: Theme::Dark, ..Settings::default() }).unwrap();
        assert_eq!(home.load(Flags::default()).unwrap().settings.theme, Theme::Dark);
        assert_eq!(
            std::fs::read(file.with_extension("toml.damaged")).unwrap(),
            damage,
            "kept for its author"
        );
    }
}

#[test]
fn freshness_is_told_by_pattern_in_the_file() {
    let home = Home::new();
    let text = r#"[freshness]
"nginx" = "never"
"ghcr.io/acme/**" = { check = "on-request", stale_max = "7d" }
"quay.io" = { every = "15m" }
"#;
    let rules = home.load_file(text).unwrap().settings.freshness;
    let told: Vec<_> = rules
        .iter()
        .map(|rule| (rule.pattern.as_str(), rule.check.to_string(), rule.stale_max_seconds))
        .collect();
    assert_eq!(
        told,
        [
            ("docker.io/library/nginx", "never".to_owned(), None),
            ("ghcr.io/acme/**", "on-request".to_owned(), Some(604_800)),
            ("quay.io/**", "every 15m".to_owned(), None),
        ]
    );
    for (bad, advice) in [
        ("freshness = \"15m\"", "docker.io/library/*"),
        ("[freshness]\nnginx = \"sometimes\"", "on-request"),
        ("[freshness]\nnginx = { checked = \"15m\" }", "stale_max"),
        ("[freshness]\n\"a b\" = \"15m\"", "docker.io/library/*"),
        ("[freshness]\nnginx = { stale_max = \"0s\" }", "from 1s"),
    ] {
        let refused = home.load_file(bad).unwrap_err().to_string();
        assert!(refused.contains(advice), "{bad}: {refused}");
    }
}

#[test]
fn rules_of_freshness_are_saved_where_they_differ_and_read_again() {
    let home = Home::new();
    let config = home.load_file("[freshness]\nnginx = \"never\"\n").unwrap();
    std::fs::create_dir_all(&config.state_dir).unwrap();
    config.save_settings(&config.settings).unwrap();
    let saved = || std::fs::read_to_string(settings_file(&config.state_dir)).unwrap();
    assert!(!saved().contains("freshness"), "the file says it already: {}", saved());
    let mut settings = config.settings.clone();
    (settings.offline, settings.freshness[0].stale_max_seconds) = (true, Some(90_061));
    config.save_settings(&settings).unwrap();
    let again = home.load_file("[freshness]\nnginx = \"never\"\n").unwrap();
    assert_eq!(again.settings, settings);
    settings.freshness.clear();
    config.save_settings(&settings).unwrap();
    assert_eq!(
        home.load_file("[freshness]\nnginx = \"never\"\n").unwrap().settings,
        settings,
        "none is a choice"
    );
}
