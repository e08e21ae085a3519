//! What the shell tells the window: lines on its standard input.

use std::str::FromStr;

/// A page the window can be opened on; the page's own names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Page {
    /// Docker's set-up.
    Setup,
    /// Docker's set-up, where taking it back is shown and asked for.
    SetupUndo,
}

impl Page {
    /// Its name, as flag and in the page's address.
    pub fn name(self) -> &'static str {
        match self {
            Self::Setup => "setup",
            Self::SetupUndo => "setup-undo",
        }
    }
}

/// What the shell tells a window, one line each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Come to the front, on this page if one is given.
    Focus(Option<Page>),
    /// End.
    Quit,
}

impl Order {
    /// The line, its newline included.
    pub fn line(self) -> String {
        match self {
            Self::Focus(None) => "focus\n".to_owned(),
            Self::Focus(Some(page)) => format!("focus {}\n", page.name()),
            Self::Quit => "quit\n".to_owned(),
        }
    }
}

impl FromStr for Order {
    type Err = ();
    fn from_str(line: &str) -> Result<Self, ()> {
        match line.trim_end() {
            "focus" => Ok(Self::Focus(None)),
            "focus setup" => Ok(Self::Focus(Some(Page::Setup))),
            "focus setup-undo" => Ok(Self::Focus(Some(Page::SetupUndo))),
            "quit" => Ok(Self::Quit),
            _ => Err(()),
        }
    }
}
