//! Standard output and the log: no panic when nobody reads, nothing in them that steers a terminal.

use std::io::{self, IsTerminal, Write};

/// Writes an answer to standard output. A reader that left (`| head`) has seen enough: no error.
pub(crate) fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// Standard error, for the log: each write is one line, and control characters in it are escaped. Repository names and
/// user agents come from outside and end up here.
pub(crate) struct LogLine;

impl Write for LogLine {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        let mut line = crate::show::plain(text.strip_suffix('\n').unwrap_or(&text));
        line.push('\n');
        // A log nobody reads must not stop the mirror.
        let _ = io::stderr().lock().write_all(line.as_bytes());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Tells a person on standard error what went wrong.
pub(crate) fn complain(text: &str) {
    ask(&format!("sampan: {}\n", crate::show::plain(text)));
}

/// Writes to a person on standard error: it stays visible when standard output goes elsewhere.
pub(crate) fn ask(text: &str) {
    // Nobody there to read is nobody to tell.
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// One line on standard error that is written over and over, where a person watches; nothing elsewhere.
pub(crate) struct Progress {
    watched: bool,
    /// The width of what stands there.
    width: usize,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self { watched: io::stderr().is_terminal(), width: 0 }
    }

    /// Shows `text` in place of what stood there.
    pub(crate) fn show(&mut self, text: &str) {
        if self.watched {
            let text = crate::show::plain(text);
            ask(&format!("\r{text:<width$}", width = self.width));
            self.width = text.chars().count();
        }
    }
}

impl Progress {
    /// Whether a person watches.
    pub(crate) fn is_watched(&self) -> bool {
        self.watched
    }

    /// Leaves the line empty for what comes next.
    pub(crate) fn clear(&mut self) {
        if self.width > 0 {
            ask(&format!("\r{:width$}\r", "", width = self.width));
            self.width = 0;
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}
