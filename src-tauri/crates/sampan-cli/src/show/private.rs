//! Private images, as text for people.

use jiff::tz::TimeZone;
use sampan_app::api::{LoginKind, PrivateImages, PrivateRule};

use super::{columns, plain, time};

/// What `private` says.
pub(crate) fn private(private: &PrivateImages, zone: &TimeZone) -> String {
    let mut text = String::new();
    if private.shared {
        text.push_str("Other machines reach this Sampan: it leaves all private images to Docker.\n");
    } else if private.rules.is_empty() {
        text.push_str("Sampan uses no login: Docker fetches private images itself.\n");
    }
    if !private.rules.is_empty() {
        let mut rows = vec![["PATTERN", "LOGIN", "CHECKED", ""].map(str::to_owned)];
        rows.extend(private.rules.iter().map(|rule| row(rule, zone)));
        text.push_str(&columns(&rows));
        for problem in private.rules.iter().filter_map(|rule| rule.problem.as_ref()) {
            text.push_str(&plain(&format!("{}. {}", problem.message, problem.next_step)));
            text.push('\n');
        }
    }
    if !private.seen.is_empty() {
        text.push_str("\nLeft to Docker lately:\n");
        let rows: Vec<_> = private
            .seen
            .iter()
            .map(|seen| [seen.image.clone(), time(seen.at, zone), seen.problem.message.clone()])
            .collect();
        text.push_str(&columns(&rows));
        if let Some(pattern) = private.seen.iter().find_map(|seen| seen.pattern.as_ref()) {
            text.push_str(&plain(&format!(
                "`sampan private allow '{pattern}'` lets Sampan fetch such images with Docker's login."
            )));
            text.push('\n');
        }
    }
    text
}

fn row(rule: &PrivateRule, zone: &TimeZone) -> [String; 4] {
    let login = match rule.login {
        LoginKind::Docker => "Docker's",
        LoginKind::Keyring => "keyring",
    };
    let login = rule.realm.as_ref().map_or_else(|| login.into(), |host| format!("{login}, also for {host}"));
    let checked = rule.checked.map_or_else(|| "not yet".into(), |at| time(at, zone));
    let state = if rule.problem.is_some() { "does not work" } else { "" };
    [rule.pattern.clone(), login, checked, state.into()]
}
