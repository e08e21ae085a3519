//! What a person may write after `sampan private`.

use clap::{Args, Subcommand, ValueEnum};
use sampan_app::api::{Command, LoginKind};

use super::Format;

/// What to do about private images.
#[derive(Args, Clone, Debug)]
pub(crate) struct Private {
    #[command(subcommand)]
    pub(crate) what: Option<PrivateCommand>,
    #[command(flatten)]
    pub(crate) format: Format,
}

/// One thing to do about private images.
#[derive(Subcommand, Clone, Debug)]
pub(crate) enum PrivateCommand {
    /// Show the rules, and which images turned out to need a login
    Show,
    /// Let Sampan fetch some images with a login
    Allow {
        /// ghcr.io/acme/app, or ghcr.io/acme/* with everything below
        #[arg(value_name = "PATTERN")]
        pattern: String,
        /// The login Docker has, or one of Sampan's own (`sampan private login`)
        #[arg(long, value_enum, value_name = "docker|keyring", default_value = "docker")]
        login: Login,
        /// The host of its token server, where that is not the registry's own: sso.acme.example
        ///
        /// The login is sent there as well. It must be of the same domain.
        #[arg(long, value_name = "HOST")]
        realm: Option<String>,
    },
    /// Leave some images to Docker again
    ///
    /// What was fetched for them is answered no longer; `sampan clear` frees its room.
    Remove {
        /// The pattern, as shown
        #[arg(value_name = "PATTERN")]
        pattern: String,
    },
    /// Look for the logins again, after `docker login`
    Retry,
    /// Keep a login of Sampan's own for a registry in the system's keyring
    ///
    /// The password is read from standard input, one line. Prefer a token that may only read.
    Login {
        /// ghcr.io; docker.io for Docker Hub
        #[arg(value_name = "REGISTRY")]
        registry: String,
        /// The name of the account
        #[arg(long, short, value_name = "NAME")]
        username: String,
    },
    /// Take that login out of the keyring
    Logout {
        /// The registry
        #[arg(value_name = "REGISTRY")]
        registry: String,
    },
}

/// Which login.
#[derive(ValueEnum, Clone, Copy, Debug)]
pub(crate) enum Login {
    /// The login Docker has
    Docker,
    /// One of Sampan's own, in the system's keyring
    Keyring,
}

impl PrivateCommand {
    /// What to ask Sampan for; `None`: nothing is changed there.
    pub(crate) fn change(&self) -> Option<Command> {
        match self {
            Self::Show | Self::Login { .. } | Self::Logout { .. } => None,
            Self::Allow { pattern, login, realm } => Some(Command::PrivateAllow {
                pattern: pattern.clone(),
                login: match login {
                    Login::Docker => LoginKind::Docker,
                    Login::Keyring => LoginKind::Keyring,
                },
                realm: realm.clone(),
            }),
            Self::Remove { pattern } => Some(Command::PrivateRemove { pattern: pattern.clone() }),
            Self::Retry => Some(Command::PrivateRetry),
        }
    }
}
