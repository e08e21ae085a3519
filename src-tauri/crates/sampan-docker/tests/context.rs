//! Which engine the `docker` command would speak to.

use std::path::Path;

use sampan_docker::context::{ContextError, DEFAULT_ENDPOINT, Reach, Sources, meta_path, reach};

#[test]
fn the_first_that_names_an_engine_decides() {
    let remote = Some(r#"{"auths": {}, "currentContext": "remote"}"#);
    for (host, context, config, expected, why) in [
        (None, None, None, None, "nothing is named: the default endpoint"),
        (Some("unix:///x.sock"), Some("other"), remote, None, "DOCKER_HOST beats both contexts"),
        (Some(""), Some("other"), remote, Some("other"), "an empty DOCKER_HOST is none"),
        (None, Some("other"), remote, Some("other"), "DOCKER_CONTEXT beats the file"),
        (None, Some("default"), remote, None, "DOCKER_CONTEXT can choose the default"),
        (None, Some(""), remote, Some("remote"), "an empty DOCKER_CONTEXT is none"),
        (None, None, remote, Some("remote"), "the file decides last"),
        (None, None, Some(r#"{"currentContext": "default"}"#), None, "the file can choose the default"),
        (None, None, Some(r#"{"currentContext": ""}"#), None, "an empty name is none"),
        (None, None, Some("{}"), None, "no name in the file"),
        (None, None, Some("not json"), None, "the docker command warns and uses the default"),
    ] {
        let sources =
            Sources { docker_host: host, docker_context: context, config_json: config.map(str::as_bytes) };
        assert_eq!(sources.context().map(|(name, _)| name).as_deref(), expected, "{why}");
    }
}

#[test]
fn the_endpoint_comes_from_the_context_that_decides() {
    let meta = br#"{"Name":"rootless","Metadata":{},"Endpoints":{"docker":{"Host":"unix:///run/user/1000/docker.sock","SkipTLSVerify":false}}}"#;
    let sources = Sources { docker_context: Some("rootless"), ..Sources::default() };
    let endpoint = sources.endpoint(Some(meta)).unwrap();
    assert_eq!(endpoint.host, "unix:///run/user/1000/docker.sock", "as the context says");
    assert_eq!(endpoint.context.as_deref(), Some("rootless"), "and by whom");
    assert!(endpoint.because.contains("DOCKER_CONTEXT"), "with the evidence: {}", endpoint.because);
    let unknown = ContextError::Unknown("rootless".into());
    for (meta, why) in [
        (None, "no description"),
        (Some(b"{}".as_slice()), "no endpoint in it"),
        (Some(b"{\"Endpoints\":{\"docker\":{\"Host\":\"\"}}}"), "an empty endpoint"),
        (Some(b"no json"), "not a description"),
    ] {
        assert_eq!(
            sources.endpoint(meta),
            Err(unknown.clone()),
            "{why}: never another engine than the one chosen"
        );
    }
    let host = Sources { docker_host: Some("tcp://10.0.0.1:2375"), ..sources };
    assert_eq!(host.endpoint(None).unwrap().host, "tcp://10.0.0.1:2375", "DOCKER_HOST needs no description");
    assert_eq!(Sources::default().endpoint(None).unwrap().host, DEFAULT_ENDPOINT, "the usual place");
}

#[test]
fn a_context_is_described_in_a_folder_named_by_the_hash_of_its_name() {
    let folder = "12b961af5feb3e9d39f93b2cefb9a1a944f18d02cca0cac2f04f5a982240605f";
    assert_eq!(
        meta_path(Path::new("/home/a/.docker"), "rootless"),
        Path::new("/home/a/.docker/contexts/meta").join(folder).join("meta.json"),
        "docker/cli, cli/context/store"
    );
}

#[test]
fn only_sockets_and_pipes_are_this_machine() {
    for (host, expected) in [
        ("unix:///var/run/docker.sock", Reach::Unix("/var/run/docker.sock".into())),
        ("/var/run/docker.sock", Reach::Unix("/var/run/docker.sock".into())),
        ("npipe:////./pipe/docker_engine", Reach::Pipe("npipe:////./pipe/docker_engine".into())),
        ("tcp://127.0.0.1:2375", Reach::Remote),
        ("tcp://10.0.0.1:2376", Reach::Remote),
        ("ssh://user@host", Reach::Remote),
        ("http://localhost:2375", Reach::Remote),
        ("unix://relative.sock", Reach::Remote),
        ("", Reach::Remote),
        ("10.0.0.1:2375", Reach::Remote),
    ] {
        assert_eq!(reach(host), expected, "{host}: a tunnel looks like a local port");
    }
}
