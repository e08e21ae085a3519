//! Rows that say nothing readable: damage that SQLite does not see.

use rusqlite::Error;

/// What was read of a row; `None` where a value is of another kind than its column's, or its text is none. SQLite calls such
/// a file sound. The row then counts as one that is not there, so that one bad byte costs what it is about and no more.
pub(crate) fn readable<T>(read: rusqlite::Result<T>) -> rusqlite::Result<Option<T>> {
    match read {
        Ok(value) => Ok(Some(value)),
        Err(
            Error::Utf8Error(..)
            | Error::FromSqlConversionFailure(..)
            | Error::InvalidColumnType(..)
            | Error::IntegralValueOutOfRange(..),
        ) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;

    #[test]
    fn a_text_that_is_none_is_no_answer_and_a_missing_table_is_an_error() {
        let connection = Connection::open_in_memory().unwrap();
        let read = |sql: &str| readable(connection.query_row(sql, [], |row| row.get::<_, String>(0)));
        assert_eq!(read("SELECT 'text'").unwrap().as_deref(), Some("text"));
        for unreadable in ["SELECT CAST(x'80ff' AS TEXT)", "SELECT 7", "SELECT NULL", "SELECT x'80ff'"] {
            assert_eq!(read(unreadable).unwrap(), None, "{unreadable}");
        }
        assert!(read("SELECT digest FROM blob").is_err());
        let parsed = readable(
            connection.query_row("SELECT CAST(x'80' AS TEXT)", [], |row| Ok(row.get_ref(0)?.as_str()?.len())),
        );
        assert_eq!(parsed.unwrap(), None, "whichever way it is read");
    }
}
