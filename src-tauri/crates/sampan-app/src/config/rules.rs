//! Rules of freshness as both files write them: a pattern, and `"15m"` or `{ check = "15m", stale_max = "7d" }`.

use toml_edit::{InlineTable, Item, Table, Value, value};

use crate::api::{Freshness, FreshnessRule, age, parse_age};
use crate::freshness::checked;

const EXAMPLE: &str = "write \"15m\", or { check = \"15m\", stale_max = \"7d\" }";

/// Reads one rule.
/// # Errors
/// A sentence for the person who wrote it.
pub(super) fn read(pattern: &str, item: &Item) -> Result<FreshnessRule, String> {
    let (mut check, mut stale_max_seconds) = (Freshness::default(), None);
    if let Some(text) = item.as_str() {
        check = text.parse()?;
    } else {
        let table = item.as_table_like().ok_or(EXAMPLE)?;
        for (key, item) in table.iter() {
            let text = item.as_str().ok_or(EXAMPLE)?;
            match key {
                "check" => check = text.parse()?,
                "every" => check = Freshness::Every(parse_age(text)?),
                "stale_max" => stale_max_seconds = Some(parse_age(text)?),
                _ => return Err(EXAMPLE.into()),
            }
        }
    }
    checked(&FreshnessRule { pattern: pattern.into(), check, stale_max_seconds })
}

/// Reads all rules of a table; one that cannot be read is one of a newer version, and is left out. `None`: no table.
pub(super) fn read_all(item: &Item) -> Option<Vec<FreshnessRule>> {
    Some(item.as_table_like()?.iter().filter_map(|(pattern, item)| read(pattern, item).ok()).collect())
}

/// Writes all rules as a table.
pub(super) fn write(rules: &[FreshnessRule]) -> Item {
    let mut table = Table::new();
    for rule in rules {
        let check = rule.check.to_string();
        table[&rule.pattern] = match rule.stale_max_seconds {
            None => value(check),
            Some(seconds) => {
                let parts = [("check", check), ("stale_max", age(seconds))];
                let inline: InlineTable = parts.into_iter().collect();
                Item::Value(Value::InlineTable(inline))
            }
        };
    }
    Item::Table(table)
}
