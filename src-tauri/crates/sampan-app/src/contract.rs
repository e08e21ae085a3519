//! The TypeScript side of the contract, generated from [`crate::api`] so that the window can never disagree with it.

use std::collections::{BTreeMap, BTreeSet};

use ts_rs::{Config, TS, TypeVisitor};

use crate::api::{Command, Reply};

const HEADER: &str = "\
// Generated from Rust (src-tauri/crates/sampan-app/src/api.rs and api/). Do not edit: run
// `UPDATE_CONTRACT=1 cargo test -p sampan-app contract` after changing the Rust side.
//
// All sizes are bytes, all times milliseconds since 1970-01-01 UTC, all rates bytes per second, unless a name says
// otherwise.
";

/// The channel between the shell and its window; not part of the socket's protocol.
const WATCH_MESSAGE: &str = "
/** What the window is told while it watches: the newest state, or that the connection to Sampan is lost for now. */
export type WatchMessage = { \"kind\": \"snapshot\", \"value\": Snapshot } | { \"kind\": \"lost\" };
";

/// The whole contract as one TypeScript module: every type of [`crate::api`], each after those it is made of.
pub fn typescript() -> String {
    let config = Config::new();
    let mut types = Types { config: &config, found: BTreeMap::new(), needed: BTreeSet::new() };
    types.visit::<Command>();
    types.visit::<Reply>();
    let mut text = HEADER.to_owned();
    while let Some(name) = types.found.keys().next().cloned() {
        types.write(&name, &mut text);
    }
    text + WATCH_MESSAGE
}

/// The types of the contract that are not written yet, by name: ts-rs visits them in an order that changes from build to
/// build, and the file must not.
struct Types<'a> {
    config: &'a Config,
    found: BTreeMap<String, Declaration>,
    needed: BTreeSet<String>,
}

struct Declaration {
    text: String,
    needs: BTreeSet<String>,
}

impl TypeVisitor for Types<'_> {
    fn visit<T: TS + 'static + ?Sized>(&mut self) {
        // Types without a file of their own are TypeScript's: `string`, `number`.
        if T::output_path().is_none() {
            return;
        }
        let name = T::ident(self.config);
        self.needed.insert(name.clone());
        if self.found.contains_key(&name) {
            return;
        }
        let text = tidy(&format!("{}export {}", T::docs().unwrap_or_default(), T::decl(self.config)));
        // Known before its parts are visited, or a type that holds itself would be visited for ever.
        self.found.insert(name.clone(), Declaration { text, needs: BTreeSet::new() });
        let needed_outside = std::mem::take(&mut self.needed);
        T::visit_dependencies(self);
        let needs = std::mem::replace(&mut self.needed, needed_outside);
        if let Some(declaration) = self.found.get_mut(&name) {
            declaration.needs = needs;
        }
    }
}

impl Types<'_> {
    /// Writes a type after those it needs, unless it is written already.
    fn write(&mut self, name: &str, text: &mut String) {
        if let Some(declaration) = self.found.remove(name) {
            for needed in &declaration.needs {
                self.write(needed, text);
            }
            text.push('\n');
            text.push_str(&declaration.text);
        }
    }
}

/// Puts comments of one line on one line, and indents what is inside a type.
fn tidy(declaration: &str) -> String {
    let folded = declaration.replace("/**\n * ", "/** ").replace("\n */\n", " */\n");
    let mut inside = false;
    let mut tidied = String::new();
    for line in folded.lines() {
        tidied.push_str(if inside { "  " } else { "" });
        tidied.push_str(line.trim_end());
        tidied.push('\n');
        inside |= line.starts_with("export ");
    }
    tidied
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_windows_contract_is_the_generated_one() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../ui/src/lib/contract.ts");
        #[expect(clippy::disallowed_methods, reason = "a test has no main to read the environment in")]
        let update = std::env::var_os("UPDATE_CONTRACT").is_some();
        if update {
            std::fs::write(&file, typescript()).unwrap();
        }
        let found = std::fs::read_to_string(&file).unwrap().replace("\r\n", "\n");
        assert!(
            found == typescript(),
            "ui/src/lib/contract.ts is not what Rust says: UPDATE_CONTRACT=1 cargo test -p sampan-app contract"
        );
    }

    #[test]
    fn every_public_type_of_the_api_is_in_it() {
        let source = [
            include_str!("api.rs"),
            include_str!("api/allowance.rs"),
            include_str!("api/cache.rs"),
            include_str!("api/carry.rs"),
            include_str!("api/clients.rs"),
            include_str!("api/docker.rs"),
            include_str!("api/freshness.rs"),
            include_str!("api/health.rs"),
            include_str!("api/private.rs"),
            include_str!("api/settings.rs"),
        ]
        .concat();
        let declared = typescript();
        let mut types = 0;
        for line in source.lines() {
            let name = line.strip_prefix("pub struct ").or_else(|| line.strip_prefix("pub enum "));
            let Some(name) = name.and_then(|rest| rest.split([' ', '{', '(']).next()) else { continue };
            types += 1;
            let uses = declared.matches(&format!("export type {name} =")).count();
            assert_eq!(uses, 1, "{name} must be in the contract once");
        }
        assert!(types > 20, "the types are found in the source: {types}");
        assert!(!declared.contains("bigint"), "JSON numbers arrive as `number`");
    }

    #[test]
    fn a_type_comes_after_those_it_is_made_of() {
        let declared = typescript();
        let place = |name: &str| declared.find(&format!("export type {name} =")).unwrap();
        assert!(place("Snapshot") < place("Reply") && place("Layer") < place("Pull"));
        assert!(place("Snapshot") < place("WatchMessage"));
    }
}
