//! Which images a compose file or a Dockerfile needs: read as Docker reads them, so far as that says what is pulled.
//!
//! Pure but for [`read`], which reads the file itself and what stands beside it. Nothing in these files is run.

mod compose;
mod dockerfile;
mod dotenv;
mod expand;
#[cfg(test)]
mod tests;
mod tree;

use std::collections::HashMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use sampan_oci::Platform;

use crate::image_name;

/// The largest file that is read; a longer one is some other file.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// The most images one file may name.
const IMAGES_MAX: usize = 1000;

/// An image that a file needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// In full: `docker.io/library/alpine:3.20`.
    pub name: String,
    /// For which platform, where the file says so.
    pub platform: Option<Platform>,
}

/// What a file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct List {
    /// In the file's order, each once.
    pub images: Vec<Listed>,
    /// What was left out or guessed, one English sentence each.
    pub notes: Vec<String>,
}

impl List {
    fn add(&mut self, name: &str, platform: Option<Platform>) -> Result<(), String> {
        let name = image_name::full(name)?;
        if self.images.len() >= IMAGES_MAX {
            return Err(format!("more than {IMAGES_MAX} images"));
        }
        let listed = Listed { name, platform };
        if !self.images.contains(&listed) {
            self.images.push(listed);
        }
        Ok(())
    }

    fn append(&mut self, other: Self) {
        for listed in other.images {
            if !self.images.contains(&listed) {
                self.images.push(listed);
            }
        }
        self.notes.extend(other.notes);
    }
}

/// Why a file cannot be read as a list of images. The text says where and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// It cannot be opened, is no text, or is too large.
    #[error("cannot read {}: {source}", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It says something it cannot mean.
    #[error("{}:{line}: {message}", file.display())]
    Wrong {
        /// The file.
        file: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong, and what to write.
        message: String,
    },
}

/// Something wrong at a line.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wrong {
    line: usize,
    message: String,
}

impl Wrong {
    fn at(line: usize, message: impl Into<String>) -> Self {
        Self { line, message: message.into() }
    }
}

/// The kinds of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Compose,
    Dockerfile,
}

/// The environment, or another set of variables.
pub type Vars = HashMap<String, String>;

/// Reads a compose file or a Dockerfile; its name says which it is, else its content. `vars` is the environment; for a
/// compose file, what an `.env` beside it says comes after that.
/// # Errors
/// [`ListError`], with the line. A file that needs no image at all is none.
pub fn read(file: &Path, vars: &Vars) -> Result<List, ListError> {
    let text = text_of(file)?;
    let wrong =
        |wrong: Wrong| ListError::Wrong { file: file.to_owned(), line: wrong.line, message: wrong.message };
    let folder = file.parent().unwrap_or(Path::new(""));
    match kind(file, &text) {
        Kind::Dockerfile => dockerfile::images(&text, &dockerfile::Given::default()).map_err(wrong),
        Kind::Compose => {
            let beside = folder.join(".env");
            let mut all = HashMap::new();
            if beside.is_file() {
                let text = text_of(&beside)?;
                let said = dotenv::read(&text, vars).map_err(|wrong| ListError::Wrong {
                    file: beside.clone(),
                    line: wrong.line,
                    message: wrong.message,
                })?;
                all.extend(said);
            }
            all.extend(vars.iter().map(|(name, value)| (name.clone(), value.clone())));
            let found = compose::images(&text, &all).map_err(wrong)?;
            let mut list = found.list;
            for build in found.builds {
                list.append(of_build(&build, folder, file)?);
            }
            Ok(list)
        }
    }
}

/// The images of a service that is built.
fn of_build(build: &compose::Build, folder: &Path, compose_file: &Path) -> Result<List, ListError> {
    let (text, name) = match &build.inline {
        Some(text) => (text.clone(), compose_file.to_owned()),
        None if is_elsewhere(&build.context) => {
            let note = format!(
                "Service {}: its build context {} is not on this machine; what its Dockerfile needs is left out.",
                build.service, build.context
            );
            return Ok(List { images: Vec::new(), notes: vec![note] });
        }
        None => {
            let name = folder.join(&build.context).join(&build.dockerfile);
            (text_of(&name)?, name)
        }
    };
    dockerfile::images(&text, &build.given).map_err(|wrong| ListError::Wrong {
        // Inside the compose file lines count from where the text stands in it.
        line: if build.inline.is_some() { build.line } else { wrong.line },
        file: name,
        message: wrong.message,
    })
}

/// Whether a build context is an address, not a folder (docker-docs, "Build context").
fn is_elsewhere(context: &str) -> bool {
    context.contains("://") || context.starts_with("git@") || context.starts_with("github.com/")
}

fn text_of(file: &Path) -> Result<String, ListError> {
    let unreadable = |source| ListError::Unreadable { file: file.to_owned(), source };
    let refused = |why: &str| unreadable(std::io::Error::other(why));
    // Before it is opened: a pipe would wait for its other end.
    if !std::fs::metadata(file).map_err(unreadable)?.is_file() {
        return Err(refused("it is no file"));
    }
    let mut text = String::new();
    let read = std::fs::File::open(file).map_err(unreadable)?.take(FILE_BYTES_MAX + 1);
    std::io::BufReader::new(read).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(refused("it is larger than 1 MiB"));
    }
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

/// By its name: `*.yaml`, `*.yml` and `*.json` are compose files, `Dockerfile*`, `Containerfile*` and `*.dockerfile` are
/// what they say. By its content otherwise: a Dockerfile begins with FROM or ARG.
fn kind(file: &Path, text: &str) -> Kind {
    let name = file.file_name().map(|name| name.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
    let ends = |end: &[&str]| end.iter().any(|end| name.ends_with(end));
    if ends(&[".yaml", ".yml", ".json"]) {
        return Kind::Compose;
    }
    let named = name.starts_with("dockerfile") || name.starts_with("containerfile");
    if named || ends(&[".dockerfile", ".containerfile"]) {
        return Kind::Dockerfile;
    }
    let first = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
    let word = first.and_then(|line| line.split_whitespace().next()).unwrap_or_default();
    if ["from", "arg"].contains(&word.to_ascii_lowercase().as_str()) {
        Kind::Dockerfile
    } else {
        Kind::Compose
    }
}
