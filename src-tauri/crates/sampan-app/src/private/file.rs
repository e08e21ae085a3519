//! `private.toml` in the state folder: which images a person lets Sampan fetch with a login. No login is in it.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use sampan_mirror::PrivatePattern;
use toml_edit::{ArrayOfTables, DocumentMut, Item, Table, value};

use super::Rule;
use crate::api::LoginKind;
use crate::aside::set_aside;

const FILE: &str = "private.toml";
const VERSION: i64 = 1;

fn path(state_dir: &Path) -> PathBuf {
    state_dir.join(FILE)
}

/// Reads the rules. A damaged file gives none: then Docker fetches private images itself, and nothing is lost but a choice.
pub(super) fn load(state_dir: &Path) -> Vec<Rule> {
    let text = match std::fs::read_to_string(path(state_dir)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            tracing::warn!(%error, "the rules about private images cannot be read: none is in force");
            return Vec::new();
        }
    };
    let document = text.parse::<DocumentMut>().ok();
    let version = |document: &DocumentMut| document.get("version").map_or(Some(VERSION), Item::as_integer);
    let Some(document) = document.filter(|document| version(document) == Some(VERSION)) else {
        tracing::warn!("the rules about private images are damaged, or a newer Sampan's: none is in force");
        if let Err(error) = set_aside(&path(state_dir)) {
            tracing::warn!(%error, "they could not be kept aside");
        }
        return Vec::new();
    };
    let tables = document.get("rule").and_then(Item::as_array_of_tables);
    tables.into_iter().flatten().filter_map(read).collect()
}

fn read(table: &Table) -> Option<Rule> {
    let text = |key| table.get(key).and_then(Item::as_str);
    let pattern: PrivatePattern = text("pattern")?.parse().ok()?;
    let login = match text("login")? {
        "docker" => LoginKind::Docker,
        "keyring" => LoginKind::Keyring,
        // One of a newer version gives no permission here.
        _ => return None,
    };
    let realm = text("realm").filter(|host| sampan_upstream::may_be_named(host, pattern.registry()));
    Some(Rule { login, realm: realm.map(str::to_owned), pattern })
}

/// Replaces the file.
pub(super) fn save(state_dir: &Path, rules: &[Rule]) -> io::Result<()> {
    let mut document = DocumentMut::new();
    document["version"] = value(VERSION);
    let mut tables = ArrayOfTables::new();
    for rule in rules {
        let mut table = Table::new();
        table["pattern"] = value(rule.pattern.to_string());
        table["login"] = value(match rule.login {
            LoginKind::Docker => "docker",
            LoginKind::Keyring => "keyring",
        });
        if let Some(realm) = &rule.realm {
            table["realm"] = value(realm);
        }
        tables.push(table);
    }
    document["rule"] = Item::ArrayOfTables(tables);
    let mut staged = tempfile::Builder::new().prefix(".private-").tempfile_in(state_dir)?;
    staged.write_all(document.to_string().as_bytes())?;
    staged.as_file().sync_all()?;
    staged.persist(path(state_dir)).map_err(|error| error.error)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_come_back_as_they_were_saved() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(load(folder.path()), []);
        let rule = |pattern: &str, login, realm: Option<&str>| Rule {
            pattern: pattern.parse().unwrap(),
            login,
            realm: realm.map(str::to_owned),
        };
        let rules = [
            rule("ghcr.io/acme/*", LoginKind::Docker, None),
            rule("registry.acme.example/app", LoginKind::Keyring, Some("sso.acme.example")),
        ];
        save(folder.path(), &rules).unwrap();
        assert_eq!(load(folder.path()), rules);
        save(folder.path(), &[]).unwrap();
        assert_eq!(load(folder.path()), []);
    }

    #[test]
    fn what_is_not_clearly_a_permission_is_none() {
        let folder = tempfile::tempdir().unwrap();
        for text in [
            "damaged",
            "rule = 1",
            "[[rule]]\npattern = \"ghcr.io/acme/*\"",
            "[[rule]]\npattern = \"ghcr.io/*\"\nlogin = \"docker\"",
            "[[rule]]\npattern = \"ghcr.io/acme/*\"\nlogin = \"anybody\"",
        ] {
            std::fs::write(path(folder.path()), text).unwrap();
            assert_eq!(load(folder.path()), [], "{text}");
        }
        std::fs::write(path(folder.path()), "version = 2").unwrap();
        assert_eq!(load(folder.path()), [], "a newer Sampan's");
        let aside = ["private.toml.damaged", "private.toml.damaged-2"].map(|name| folder.path().join(name));
        assert_eq!(aside.map(|file| std::fs::read_to_string(file).unwrap()), ["damaged", "version = 2"]);
        let text = "[[rule]]\npattern = \"ghcr.io/acme/*\"\nlogin = \"docker\"\nrealm = \"evil.example\"";
        std::fs::write(path(folder.path()), text).unwrap();
        assert_eq!(load(folder.path())[0].realm, None, "a realm elsewhere is no realm");
    }
}
