//! What no lint checks: the arrows between crates, the size of files, the tree, and that both languages say the same.
//! Each rule is a function over plain text, tried on something wrong first: a rule that cannot fail holds nothing.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Which of our crates each may use. DESIGN: desktop, cli → app → {mirror, docker, stats, archive} → {upstream, store} → oci.
const ARROWS: &[(&str, &[&str])] = &[
    ("sampan-desktop", &["sampan-app"]),
    ("sampan-cli", &["sampan-app"]),
    (
        "sampan-app",
        &[
            "sampan-mirror",
            "sampan-docker",
            "sampan-stats",
            "sampan-archive",
            "sampan-upstream",
            "sampan-store",
            "sampan-oci",
        ],
    ),
    ("sampan-mirror", &["sampan-upstream", "sampan-store", "sampan-oci"]),
    ("sampan-docker", &["sampan-oci"]),
    ("sampan-stats", &["sampan-oci"]),
    ("sampan-archive", &["sampan-store", "sampan-oci"]),
    ("sampan-upstream", &["sampan-oci"]),
    ("sampan-store", &["sampan-oci"]),
    ("sampan-oci", &[]),
    ("sampan-testkit", &["sampan-oci"]),
    ("xtask", &[]),
];

/// Libraries that one crate speaks to the rest for, and who else may have them.
const KEEPERS: &[(&str, &[&str])] = &[
    ("reqwest", &["sampan-upstream", "sampan-testkit"]),
    ("tauri", &["sampan-desktop"]),
    ("axum", &["sampan-mirror", "sampan-testkit"]),
];

/// The crate of specifications stands outside: it may use everything.
const TESTS: &str = "sampan-tests";
/// May be used by tests only, in whichever crate.
const TESTKIT: &str = "sampan-testkit";

const LINES_MAX: usize = 600;
/// Made from `sampan-app/src/api.rs` and `api/`, whose files are short: nobody writes it, and it is one module for the page.
const GENERATED: &str = "ui/src/lib/contract.ts";
const TOP_LEVEL: &[&str] = &[
    "Cargo.toml",
    "Cargo.lock",
    "README.md",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "src-tauri",
    "ui",
    "icons",
    "tests",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the repository").to_path_buf()
}

/// All files git knows or would add, relative to the repository.
fn files() -> Vec<PathBuf> {
    let output = Command::new("git")
        // In a container the repository often belongs to someone else than who runs the tests.
        .args(["-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .expect("git is installed");
    assert!(output.status.success(), "git ls-files: {}", String::from_utf8_lossy(&output.stderr));
    let listed = String::from_utf8(output.stdout).expect("file names are UTF-8");
    // A file deleted but not yet committed is still listed.
    let files: Vec<_> =
        listed.split_terminator('\0').map(PathBuf::from).filter(|file| root().join(file).is_file()).collect();
    assert!(files.len() > 50, "the listing is of the whole repository, not of nothing");
    files
}

fn text(file: &Path) -> Option<String> {
    String::from_utf8(fs::read(root().join(file)).expect("a listed file can be read")).ok()
}

fn named(name: &str) -> impl Iterator<Item = PathBuf> {
    files().into_iter().filter(move |file| file.file_name().is_some_and(|this| this == name))
}

// --- crates

/// One crate's manifest, as far as the arrows are concerned.
struct Crate {
    name: String,
    /// `[dependencies]` and `[build-dependencies]`, for every target.
    uses: BTreeSet<String>,
    /// `[dev-dependencies]`.
    tests_use: BTreeSet<String>,
    /// Whether the workspace's lints hold for it.
    lints: bool,
}

impl Crate {
    fn parse(manifest: &str) -> Option<Self> {
        let manifest: toml::Table = manifest.parse().expect("a manifest is TOML");
        let name = manifest.get("package")?.get("name")?.as_str()?.to_owned();
        let mut scopes = vec![&manifest];
        let targets = manifest.get("target").and_then(toml::Value::as_table);
        scopes.extend(
            targets.into_iter().flat_map(|targets| targets.values()).filter_map(toml::Value::as_table),
        );
        let names = |section: &str| -> BTreeSet<String> {
            let tables = scopes.iter().filter_map(|scope| scope.get(section)?.as_table());
            let package = |(key, value): (&String, &toml::Value)| {
                value.get("package").and_then(toml::Value::as_str).unwrap_or(key).to_owned()
            };
            tables.flat_map(|table| table.iter().map(package)).collect()
        };
        let uses = names("dependencies").union(&names("build-dependencies")).cloned().collect();
        let lints =
            manifest.get("lints").and_then(|lints| lints.get("workspace")?.as_bool()).unwrap_or(false);
        Some(Self { name, uses, tests_use: names("dev-dependencies"), lints })
    }

    /// What this manifest does that the tables above do not allow.
    fn violations(&self) -> Vec<String> {
        if self.name == TESTS {
            return Vec::new();
        }
        let mut found = Vec::new();
        let allowed = ARROWS.iter().find(|(name, _)| *name == self.name).map(|(_, allowed)| *allowed);
        let Some(allowed) = allowed else {
            return vec![format!("{} has no place among the arrows: give it one", self.name)];
        };
        let is_ours = |name: &&String| name.starts_with("sampan-") || *name == "xtask";
        for used in self.uses.iter().filter(is_ours).filter(|used| !allowed.contains(&used.as_str())) {
            found.push(format!("{} → {used} is not an arrow", self.name));
        }
        for used in self.tests_use.iter().filter(is_ours) {
            if used != TESTKIT && !allowed.contains(&used.as_str()) {
                found.push(format!("tests of {} → {used} is not an arrow", self.name));
            }
        }
        for (library, keepers) in KEEPERS {
            if self.uses.contains(*library) && !keepers.contains(&self.name.as_str()) {
                found.push(format!(
                    "{} uses {library}, which is for {} alone",
                    self.name,
                    keepers.join(" and ")
                ));
            }
        }
        found
    }
}

fn crates() -> Vec<Crate> {
    named("Cargo.toml").filter_map(|file| Crate::parse(&text(&file)?)).collect()
}

#[test]
fn arrows_between_crates_point_one_way() {
    let crates = crates();
    assert!(crates.len() >= ARROWS.len(), "every crate of the table exists");
    let violations: Vec<_> = crates.iter().flat_map(Crate::violations).collect();
    assert_eq!(violations, [""; 0], "see the tables in this file, and DESIGN in src-tauri/README.md");
}

#[test]
fn an_arrow_that_points_back_or_past_its_keeper_is_noticed() {
    let violations = |manifest: &str| Crate::parse(manifest).unwrap().violations();
    let store = "[package]\nname = 'sampan-store'\n";
    assert_eq!(violations(&format!("{store}[dependencies]\nsampan-oci.workspace = true")), [""; 0]);
    assert_eq!(violations(&format!("{store}[dev-dependencies]\nsampan-testkit.workspace = true")), [""; 0]);
    for wrong in [
        "[dependencies]\nsampan-mirror.workspace = true",
        "[dependencies]\nsampan-testkit.workspace = true",
        "[dev-dependencies]\nsampan-app.workspace = true",
        "[dependencies]\nreqwest.workspace = true",
        "[target.'cfg(unix)'.dependencies]\naxum = '0.8'",
        "[build-dependencies]\ntauri = '2'",
        "[dependencies]\nhttp_client = { package = 'reqwest', version = '0.13' }",
    ] {
        assert_eq!(violations(&format!("{store}{wrong}")).len(), 1, "{wrong}");
    }
    assert_eq!(violations("[package]\nname = 'sampan-new'").len(), 1, "a new crate chooses its place");
}

#[test]
fn every_crate_obeys_the_workspace_lints() {
    let lax: Vec<_> = crates().into_iter().filter(|this| !this.lints).map(|this| this.name).collect();
    assert_eq!(lax, [""; 0], "`[lints] workspace = true` is missing");
}

/// The comment a file opens with.
fn opening(source: &str) -> String {
    source.lines().take_while(|line| line.starts_with("//!")).collect::<Vec<_>>().join("\n")
}

#[test]
fn every_library_says_first_what_it_owns_and_what_it_never_does() {
    let silent: Vec<_> =
        named("lib.rs").filter(|file| !opening(&text(file).unwrap()).contains("Never")).collect();
    assert_eq!(
        silent,
        [""; 0].map(PathBuf::from),
        "open with `//!`: what it owns, what it Never does, where to start"
    );
    assert!(!opening("use std::fs;\n//! Never").contains("Never"), "the opening is at the top");
}

#[test]
fn every_program_says_first_what_it_is() {
    let silent: Vec<_> = named("main.rs").filter(|file| opening(&text(file).unwrap()).is_empty()).collect();
    assert_eq!(silent, [""; 0].map(PathBuf::from), "open with `//!`");
}

// --- files

#[test]
fn a_file_holds_one_idea_and_at_most_600_lines() {
    let is_source = |file: &PathBuf| {
        file.extension()
            .is_some_and(|extension| ["rs", "ts", "svelte"].iter().any(|source| extension == *source))
    };
    let lines = |file: &Path| text(file).map_or(0, |text| text.lines().count());
    let long: Vec<_> = files()
        .into_iter()
        .filter(is_source)
        .filter(|file| file != Path::new(GENERATED))
        .map(|file| (lines(&file), file))
        .filter(|(lines, _)| *lines > LINES_MAX)
        .map(|(lines, file)| format!("{}: {lines} lines", file.display()))
        .collect();
    assert_eq!(long, [""; 0], "split by idea");
}

#[test]
fn the_top_level_holds_only_what_the_design_names() {
    let top = |file: PathBuf| Some(file.components().next()?.as_os_str().to_str()?.to_owned());
    let unknown: BTreeSet<_> = files()
        .into_iter()
        .filter_map(top)
        .filter(|name| !name.starts_with('.') && !TOP_LEVEL.contains(&name.as_str()))
        .collect();
    assert_eq!(unknown, BTreeSet::new(), "nothing else lies at the top");
}

/// Folders of this machine that no file may name: the checkout, and the home of whoever works in it.
fn private_folders() -> Vec<String> {
    // A checkout in `/src` or a home in `/root` is not private, and a word of many meanings.
    let is_telling = |path: &PathBuf| path.components().count() > 2;
    [Some(root()), std::env::home_dir()]
        .into_iter()
        .flatten()
        .filter(is_telling)
        .map(|path| path.display().to_string())
        .collect()
}

#[test]
fn no_file_names_a_folder_of_the_machine_it_was_written_on() {
    let private = private_folders();
    let telling: Vec<_> = files()
        .into_iter()
        .filter(|file| {
            text(file).is_some_and(|text| private.iter().any(|folder| text.contains(folder.as_str())))
        })
        .collect();
    assert_eq!(telling, [""; 0].map(PathBuf::from), "contains one of {private:?}");
}

// --- languages

fn catalogue(language: &str) -> serde_json::Map<String, serde_json::Value> {
    let file = root().join("ui/i18n").join(language).with_extension("json");
    serde_json::from_slice(&fs::read(file).expect("both catalogues exist"))
        .expect("a catalogue is one flat object")
}

/// The names in `%{...}`.
fn placeholders(text: &str) -> BTreeSet<&str> {
    text.split("%{").skip(1).filter_map(|rest| Some(rest.split_once('}')?.0)).collect()
}

#[test]
fn both_languages_have_the_same_texts() {
    let (english, vietnamese) = (catalogue("en"), catalogue("vi"));
    assert!(english.len() > 100, "the catalogue is the real one");
    let keys = |catalogue: &serde_json::Map<_, _>| catalogue.keys().cloned().collect::<BTreeSet<String>>();
    let (english_keys, vietnamese_keys) = (keys(&english), keys(&vietnamese));
    let alone: Vec<_> = english_keys.symmetric_difference(&vietnamese_keys).collect();
    assert_eq!(alone, [""; 0], "in one language only");
}

#[test]
fn a_translation_fills_in_the_same_values() {
    let (english, vietnamese) = (catalogue("en"), catalogue("vi"));
    for (key, text) in &english {
        let text = text.as_str().unwrap_or_else(|| panic!("{key} is a text"));
        let other =
            vietnamese.get(key).and_then(|text| text.as_str()).unwrap_or_else(|| panic!("{key} is a text"));
        assert!(!text.trim().is_empty() && !other.trim().is_empty(), "{key} says nothing");
        // Vietnamese has one plural form, and may do without the number English needs twice.
        assert_eq!(placeholders(text), placeholders(other), "{key} has other values to fill in");
    }
    assert_eq!(placeholders("%{count} of %{all}%"), BTreeSet::from(["all", "count"]));
}
