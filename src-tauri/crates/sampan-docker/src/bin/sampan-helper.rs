//! The privileged step, run as root by polkit: `sampan-helper VERB PORT`, nothing else. A verb is `enable`, `enable.SET` or
//! `disable`, each also with `-restart.STOPS`, where the person consented to that too. SET is a number from 0 to 63: which
//! of the known registries are set up besides Docker Hub. STOPS marks the containers that the person agreed to stop: where
//! others would, nothing restarts.
//!
//! Takes no path, no address and no content from whoever calls it: it looks for the system's Docker itself, makes
//! its own plan by the same pure code, carries it out with the same backups, journal and rollback, and prints one
//! line of JSON. It starts itself again with an empty environment before it does anything.

use std::process::ExitCode;

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    linux::main()
}

#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    ExitCode::from(2)
}

#[cfg(target_os = "linux")]
mod linux {
    use std::ffi::OsString;
    use std::io::Write as _;
    use std::os::unix::process::CommandExt as _;
    use std::process::{Command, ExitCode};
    use std::sync::Arc;

    use sampan_docker::{
        Action, ApplyError, Choice, Direct, Environment, HelperReport, KNOWN, Kind, Verb, apply, detect,
        hold, plan, recover, trusted,
    };
    use sampan_oci::{Clock, Millis, RegistryName};

    /// The only socket the helper speaks to: the system's.
    const ENDPOINT: &str = "unix:///var/run/docker.sock";

    #[derive(Debug)]
    struct SystemClock;

    impl Clock for SystemClock {
        #[expect(
            clippy::disallowed_methods,
            reason = "a program of its own: this is where its clock is made"
        )]
        fn now(&self) -> Millis {
            let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            Millis(since.ok().and_then(|since| i64::try_from(since.as_millis()).ok()).unwrap_or(0))
        }
    }

    pub(super) fn main() -> ExitCode {
        let arguments: Vec<OsString> = std::env::args_os().collect();
        let Some((verb, port)) = wanted(&arguments) else {
            let usage = "usage: sampan-helper enable[.SET][-restart.STOPS]|disable[-restart.STOPS] PORT";
            let _ = writeln!(std::io::stderr(), "{usage}");
            return ExitCode::from(2);
        };
        let report = prepared(&arguments).map_or_else(failed, |()| run(verb, port));
        let line = serde_json::to_string(&report).unwrap_or_default();
        if writeln!(std::io::stdout(), "{line}").is_err() {
            return ExitCode::FAILURE;
        }
        if report.done { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    /// One verb and one port, in the one spelling there is of each.
    fn wanted(arguments: &[OsString]) -> Option<(Verb, u16)> {
        let [_, verb, port] = arguments else { return None };
        let verb: Verb = verb.to_str()?.parse().ok()?;
        let port: u16 = port
            .to_str()
            .filter(|text| text.parse::<u16>().is_ok_and(|n| n.to_string() == **text))?
            .parse()
            .ok()?;
        (port >= 1024).then_some((verb, port))
    }

    /// Root, from a place only root can write, with nothing inherited.
    fn prepared(arguments: &[OsString]) -> Result<(), String> {
        if !rustix::process::geteuid().is_root() {
            return Err("The privileged helper must run as root.".into());
        }
        let program =
            std::env::current_exe().map_err(|error| format!("The helper cannot find itself: {error}."))?;
        trusted(&program)?;
        if std::env::vars_os().next().is_some() {
            let error =
                Command::new(&program).args(arguments.get(1..).unwrap_or_default()).env_clear().exec();
            return Err(format!("The helper cannot start itself again: {error}."));
        }
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
        std::env::set_current_dir("/").map_err(|error| format!("The folder / cannot be entered: {error}."))
    }

    fn run(verb: Verb, port: u16) -> HelperReport {
        match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime.block_on(change(verb, port)),
            Err(error) => failed(format!("The helper cannot start: {error}.")),
        }
    }

    async fn change(verb: Verb, port: u16) -> HelperReport {
        let env = Environment {
            docker_host: Some(ENDPOINT.into()),
            docker_context: None,
            docker_config_dir: None,
            buildx_config_dir: None,
            home: "/root".into(),
            xdg_config_home: None,
            uid: 0,
            state_dir: Environment::SYSTEM_STATE_DIR.into(),
            system_state_dir: Environment::SYSTEM_STATE_DIR.into(),
            registries: KNOWN
                .iter()
                .filter_map(|name| name.parse().ok())
                .chain([RegistryName::docker_hub()])
                .collect(),
            clock: Arc::new(SystemClock),
        };
        // Held until this process ends.
        let _alone = match hold(&env.state_dir, env.uid) {
            Ok(lock) => lock,
            Err(why) => return failed(why),
        };
        let engine = detect(&env).await;
        let mut steps = match recover(&env, &engine).await {
            Ok(steps) => steps,
            Err(error) => return unsettled(&error),
        };
        let engine = if steps.is_empty() { engine } else { detect(&env).await };
        let (action, set, restart) = verb.means();
        // Taking back needs no daemon that answers, where there is none.
        let stopped = engine.gone && action == Action::Disable;
        if !engine.found && !stopped {
            return HelperReport { steps, ..failed(format!("No Docker answers at {ENDPOINT}.")) };
        }
        if !stopped && !matches!(engine.kind, Kind::Linux | Kind::Snap) {
            return failed(format!("{ENDPOINT} is {}, which needs no administrator rights.", engine.kind));
        }
        let choice = set.map_or(Choice::AsNow, |known| Choice::of_known(known, &engine));
        let planned = plan(&engine, action, port, &choice);
        let planned =
            if restart.is_some() { planned.and_then(|plan| plan.restarting(&engine)) } else { planned };
        let plan = match planned {
            Ok(plan) => plan,
            Err(error) => return failed(format!("{error}.")),
        };
        // Something may have been started while the password was typed.
        if let Some(Err(stops)) = restart.filter(|_| !plan.is_nothing()).map(|agreed| plan.stops_only(agreed))
        {
            let error = "A restart would stop other containers now than were agreed to.".into();
            return HelperReport { steps, stops: Some(stops), ..failed(error) };
        }
        match apply(&env, &engine, &plan, restart.is_some(), &Direct).await {
            Ok(applied) => {
                steps.extend(applied.steps);
                HelperReport { done: true, steps, ..HelperReport::default() }
            }
            Err(ApplyError::RolledBack { reason, steps: done }) => {
                steps.extend(done);
                HelperReport { rolled_back: true, steps, error: Some(reason), ..HelperReport::default() }
            }
            Err(error) => unsettled(&error),
        }
    }

    fn failed(error: String) -> HelperReport {
        HelperReport { error: Some(error), ..HelperReport::default() }
    }

    /// With the way out by hand, where there is one.
    fn unsettled(error: &ApplyError) -> HelperReport {
        let mut report = failed(error.to_string());
        if let ApplyError::RollbackFailed { commands, .. } = error {
            report.commands.clone_from(commands);
        }
        report
    }

    #[cfg(test)]
    mod tests {
        use super::*;
        use sampan_docker::Stops;

        fn parsed(line: &str) -> Option<(Verb, u16)> {
            let arguments: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            wanted(&arguments)
        }

        #[test]
        fn the_helper_takes_a_verb_and_a_port_and_nothing_else() {
            assert_eq!(parsed("helper enable 7267"), Some((Verb::Enable, 7267)), "the one way to enable");
            assert_eq!(parsed("helper disable 7267"), Some((Verb::Disable, 7267)), "the one way to disable");
            let stops = Stops::of(&["web".into()]);
            for (verb, text) in
                [(Verb::EnableRestart(stops), "enable"), (Verb::DisableRestart(stops), "disable")]
            {
                let line = format!("helper {text}-restart.{stops} 7267");
                assert_eq!(parsed(&line), Some((verb, 7267)), "with consent");
            }
            for text in ["enable.0", "enable.63", "enable.63-restart.0123456789abcdef"] {
                let verb = parsed(&format!("helper {text} 7267")).map(|(verb, _)| verb.to_string());
                assert_eq!(verb.as_deref(), Some(text), "a choice is a part of the verb");
            }
            for (line, why) in [
                ("helper enable.64 7267", "there is no seventh registry"),
                ("helper enable.01 7267", "one spelling"),
                ("helper enable.ghcr.io 7267", "no names"),
                ("helper enable. 7267", "a set is a number"),
                ("helper disable.1 7267", "all is taken back, always"),
                ("helper", "no verb"),
                ("helper enable -restart 7267", "one word"),
                ("helper enable-restart 7267", "consent is to stopping something"),
                ("helper enable-restart.5 7267", "a mark has 16 digits"),
                ("helper enable-restart.web 7267", "no names"),
                ("helper enable-restart.0123456789abcdef.5 7267", "one order"),
                ("helper enable.64-restart.0123456789abcdef 7267", "there is no seventh registry"),
                ("helper disable.1-restart.0123456789abcdef 7267", "all is taken back, always"),
                ("helper enable-restart.0123456789abcdef", "no port"),
                ("helper enable", "no port"),
                ("helper enable 7267 /etc/passwd", "no third argument, ever"),
                ("helper Enable 7267", "one spelling"),
                ("helper restart 7267", "not a verb"),
                ("helper enable 0", "not a port"),
                ("helper enable 80", "a port of the system's"),
                ("helper enable 65536", "not a port"),
                ("helper enable +7267", "one spelling"),
                ("helper enable 07267", "one spelling"),
                ("helper enable 7267\n", "one spelling"),
                ("helper enable http://evil/", "no address"),
                ("helper --enable 7267", "no flags"),
            ] {
                assert_eq!(parsed(line), None, "{why}: {line}");
            }
            assert_eq!(wanted(&[]), None, "no arguments at all, not even a name");
        }
    }
}
