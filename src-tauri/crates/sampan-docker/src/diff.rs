//! Differences for showing: whole files, line by line.

use similar::{ChangeTag, TextDiff};

/// One line of a difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiffLine {
    /// Whether it stays, is added or removed.
    pub kind: DiffKind,
    /// The line without its newline.
    pub text: String,
}

/// What happens to a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiffKind {
    /// It stays.
    Same,
    /// It is added.
    Added,
    /// It is removed.
    Removed,
}

/// Every line of both texts, in order. Bytes that are not UTF-8 are shown as replacement characters.
pub(crate) fn lines(before: &[u8], after: &[u8]) -> Vec<DiffLine> {
    let (before, after) = (String::from_utf8_lossy(before), String::from_utf8_lossy(after));
    TextDiff::from_lines(before.as_ref(), after.as_ref())
        .iter_all_changes()
        .map(|change| DiffLine {
            kind: match change.tag() {
                ChangeTag::Equal => DiffKind::Same,
                ChangeTag::Insert => DiffKind::Added,
                ChangeTag::Delete => DiffKind::Removed,
            },
            text: change.value().trim_end_matches(['\n', '\r']).to_owned(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_shows_every_line_once_and_marks_what_changes() {
        let shown = lines(b"{\r\n  \"debug\": true\r\n}\r\n", b"{\r\n  \"debug\": false\r\n}\r\n");
        let marks: Vec<_> = shown.iter().map(|line| (line.kind, line.text.as_str())).collect();
        assert_eq!(
            marks,
            [
                (DiffKind::Same, "{"),
                (DiffKind::Removed, "  \"debug\": true"),
                (DiffKind::Added, "  \"debug\": false"),
                (DiffKind::Same, "}"),
            ],
            "unchanged lines give the context, and no line ends in a carriage return"
        );
    }

    #[test]
    fn a_new_file_is_all_additions() {
        assert!(
            lines(b"", b"a\nb\n").iter().all(|line| line.kind == DiffKind::Added),
            "there was nothing before"
        );
        assert_eq!(lines(b"", b"a\nb\n").len(), 2, "two lines");
    }
}
