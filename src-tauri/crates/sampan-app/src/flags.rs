//! The flags every face of Sampan takes: the command line, the desktop app, and the environment behind them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use sampan_oci::RegistryName;
use url::Url;

use crate::config::{parse_connections, parse_listen, parse_outage_wait, parse_upstream};

/// What a person asked for when starting Sampan; absent values come from the configuration file, then from the
/// defaults. The same for `sampan` and for the desktop app. A flag wins over its variable.
#[derive(clap::Args, Clone, Debug, Default)]
#[command(next_help_heading = "Configuration")]
pub struct Flags {
    /// Read settings from this TOML file [default: config.toml in Sampan's configuration folder, if there]
    #[arg(long, global = true, value_name = "FILE", env = "SAMPAN_CONFIG", hide_env_values = true)]
    pub config: Option<PathBuf>,
    /// Listen for container engines at this address [default: 127.0.0.1:7267]
    ///
    /// An address that other machines can reach is used only if given here or in the file.
    #[arg(
        long,
        global = true,
        value_name = "ADDR:PORT",
        env = "SAMPAN_LISTEN",
        hide_env_values = true,
        value_parser = parse_listen
    )]
    pub listen: Option<SocketAddr>,
    /// Keep images in this folder
    #[arg(long, global = true, value_name = "DIR", env = "SAMPAN_CACHE_DIR", hide_env_values = true)]
    pub cache_dir: Option<PathBuf>,
    /// Keep statistics, settings and the socket other commands use in this folder
    #[arg(long, global = true, value_name = "DIR", env = "SAMPAN_STATE_DIR", hide_env_values = true)]
    pub state_dir: Option<PathBuf>,
    /// Mirror this registry from this address; may be repeated [default: `docker.io=https://registry-1.docker.io`]
    #[arg(
        long,
        global = true,
        value_name = "REGISTRY=URL",
        env = "SAMPAN_UPSTREAM",
        hide_env_values = true,
        value_delimiter = ',',
        value_parser = parse_upstream
    )]
    pub upstream: Vec<(RegistryName, Url)>,
    /// Use at most this many connections to one registry, 1 to 64 [default: 32]
    ///
    /// As many are used as make the download faster, and no more.
    #[arg(
        long,
        global = true,
        value_name = "N",
        env = "SAMPAN_CONNECTIONS",
        hide_env_values = true,
        value_parser = parse_connections
    )]
    pub connections: Option<usize>,
    /// Wait this long for a broken link to come back while a pull waits, up to 24h [default: 10m]
    ///
    /// What was fetched by then is kept: the next pull goes on from there.
    #[arg(
        long,
        global = true,
        value_name = "TIME",
        env = "SAMPAN_OUTAGE_WAIT",
        hide_env_values = true,
        value_parser = parse_outage_wait
    )]
    pub outage_wait: Option<Duration>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser, Debug)]
    struct Program {
        #[command(flatten)]
        flags: Flags,
    }

    fn parse(arguments: &[&str]) -> Result<Flags, clap::Error> {
        Program::try_parse_from(std::iter::once("sampan").chain(arguments.iter().copied())).map(|p| p.flags)
    }

    #[test]
    fn every_flag_has_a_variable() {
        let command = <Program as clap::CommandFactory>::command();
        for flag in ["config", "listen", "cache_dir", "state_dir", "upstream", "connections", "outage_wait"] {
            let argument = command.get_arguments().find(|a| a.get_id() == flag).unwrap();
            let variable = format!("SAMPAN_{}", flag.to_uppercase());
            assert_eq!(argument.get_env().unwrap(), variable.as_str(), "--{flag} is also a variable");
        }
    }

    #[test]
    fn upstreams_may_be_repeated_or_separated_by_commas() {
        let repeated =
            ["--upstream", "docker.io=http://127.0.0.1:1", "--upstream", "ghcr.io=https://ghcr.io"];
        let together = ["--upstream", "docker.io=http://127.0.0.1:1,ghcr.io=https://ghcr.io"];
        assert_eq!(parse(&repeated).unwrap().upstream, parse(&together).unwrap().upstream);
        assert_eq!(parse(&repeated).unwrap().upstream.len(), 2);
    }

    #[test]
    fn a_wrong_flag_is_refused_with_what_to_write_instead() {
        let table = [
            (["--listen", "7267"], "127.0.0.1:7267"),
            (["--listen", "127.0.0.1:99999"], "65535"),
            (["--listen", "localhost:7267"], "127.0.0.1:7267"),
            (["--upstream", "docker.io"], "REGISTRY=URL"),
            (["--upstream", "docker.io=127.0.0.1:5000"], "http://"),
            (["--upstream", "Docker.io=https://x.org"], "lowercase"),
            (["--connections", "0"], "1 to 64"),
            (["--connections", "65"], "1 to 64"),
            (["--connections", "many"], "1 to 64"),
            (["--outage-wait", "25h"], "0s to 24h"),
            (["--outage-wait", "10"], "0s to 24h"),
        ];
        for (arguments, advice) in table {
            let error = parse(&arguments).unwrap_err().to_string();
            assert!(error.contains(advice), "{arguments:?} should advise {advice:?}: {error}");
        }
    }

    #[test]
    fn no_flag_means_nothing_was_asked() {
        let flags = parse(&[]).unwrap();
        assert!(flags.connections.is_none() && flags.outage_wait.is_none());
        assert!(flags.listen.is_none() && flags.upstream.is_empty() && flags.state_dir.is_none());
    }
}
