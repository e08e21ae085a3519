//! Texts in the person's language, from the same files as the window's: `ui/i18n/en.json` and `ui/i18n/vi.json`.

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::api::Settings;

/// The languages there are.
pub const LOCALES: [&str; 2] = ["en", "vi"];

type Texts = HashMap<String, String>;

static EN: LazyLock<Texts> =
    LazyLock::new(|| texts(include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../ui/i18n/en.json"))));
static VI: LazyLock<Texts> =
    LazyLock::new(|| texts(include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../ui/i18n/vi.json"))));

/// The text named `key` in the language `locale`, each `%{name}` replaced by its value. Falls back to English, then to the
/// key itself: a missing text is seen, and nothing breaks.
pub fn text(locale: &str, key: &str, values: &[(&str, &str)]) -> String {
    let own = if locale == "vi" { VI.get(key) } else { None };
    fill(own.or_else(|| EN.get(key)).map_or(key, String::as_str), values)
}

/// The language to speak: the one chosen in `settings`, else the `system`'s (the value of `LC_ALL`, `LC_MESSAGES` or
/// `LANG`, such as `vi_VN.UTF-8`), else English.
pub fn locale(settings: &Settings, system: Option<&str>) -> &'static str {
    let language = |tag: &str| {
        let first = tag.split(['_', '-', '.', '@']).next().unwrap_or_default();
        LOCALES.into_iter().find(|known| first.eq_ignore_ascii_case(known))
    };
    settings.language.as_deref().and_then(language).or_else(|| system.and_then(language)).unwrap_or("en")
}

fn texts(json: &str) -> Texts {
    // The files are part of the program and a test reads them: an empty map is never seen.
    serde_json::from_str(json).unwrap_or_default()
}

/// Replaces each `%{name}`; values are not searched again, and names without a value stay as they are.
fn fill(template: &str, values: &[(&str, &str)]) -> String {
    let mut filled = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("%{") {
        filled.push_str(before);
        let found = after.split_once('}').and_then(|(name, tail)| {
            values.iter().find(|(known, _)| *known == name).map(|(_, v)| (*v, tail))
        });
        if let Some((value, tail)) = found {
            filled.push_str(value);
            rest = tail;
        } else {
            filled.push_str("%{");
            rest = after;
        }
    }
    filled.push_str(rest);
    filled
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn names(template: &str) -> BTreeSet<&str> {
        template.split("%{").skip(1).filter_map(|rest| rest.split_once('}')).map(|(name, _)| name).collect()
    }

    #[test]
    fn both_languages_say_the_same_things() {
        let keys = |texts: &'static Texts| texts.keys().map(String::as_str).collect::<BTreeSet<_>>();
        assert!(!EN.is_empty(), "en.json is flat JSON of texts");
        assert_eq!(keys(&EN), keys(&VI), "every text has both languages");
        for (key, english) in EN.iter() {
            assert_eq!(names(english), names(&VI[key]), "{key} takes the same values in both languages");
        }
    }

    #[test]
    fn a_key_without_a_text_is_shown_as_itself() {
        assert_eq!(text("vi", "no.such.key", &[]), "no.such.key");
        assert_eq!(text("xx", "no.such.key", &[]), "no.such.key");
    }

    #[test]
    fn values_are_put_in_once_and_never_searched_themselves() {
        let values = [("name", "%{size}"), ("size", "5 MB")];
        assert_eq!(fill("%{name}: %{size}", &values), "%{size}: 5 MB");
        assert_eq!(fill("%{other} 100% %{", &values), "%{other} 100% %{");
        assert_eq!(fill("%{ %{size}", &values), "%{ 5 MB");
        assert_eq!(fill("", &values), "");
    }

    #[test]
    fn the_chosen_language_wins_over_the_systems() {
        let chosen = |language: &str| Settings { language: Some(language.into()), ..Settings::default() };
        let none = Settings::default();
        let table = [
            (&none, None, "en"),
            (&none, Some("vi_VN.UTF-8"), "vi"),
            (&none, Some("vi"), "vi"),
            (&none, Some("VI-vn"), "vi"),
            (&none, Some("vie_VN"), "en"),
            (&none, Some("C"), "en"),
            (&none, Some(""), "en"),
            (&chosen("en"), Some("vi_VN.UTF-8"), "en"),
            (&chosen("vi"), Some("de_DE.UTF-8"), "vi"),
        ];
        for (settings, system, expected) in table {
            assert_eq!(
                locale(settings, system),
                expected,
                "{:?} on a system in {system:?}",
                settings.language
            );
        }
    }
}
