use super::dockerfile::Given;
use super::*;
use proptest::prelude::*;

fn vars(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn names(list: &List) -> Vec<String> {
    let short = |name: &str| name.replace("docker.io/library/", "");
    let shown = |listed: &Listed| match &listed.platform {
        Some(platform) => format!("{} for {platform}", short(&listed.name)),
        None => short(&listed.name),
    };
    list.images.iter().map(shown).collect()
}

fn dockerfile(text: &str) -> Result<List, Wrong> {
    dockerfile::images(text, &Given::default())
}

fn built(text: &str) -> Vec<String> {
    names(&dockerfile(text).unwrap())
}

#[test]
fn a_dockerfile_needs_the_bases_that_are_no_stages() {
    let own = Platform::of_this_machine();
    let table: [(&str, &[&str]); 16] = [
        ("FROM alpine", &["alpine:latest"]),
        ("from alpine:3.20 as base\nFROM base\nFROM scratch", &["alpine:3.20"]),
        (
            "FROM a AS x\nFROM b AS X2\nCOPY --from=x / /\nCOPY --from=0 / /\nCOPY --from=nginx:1 / /",
            &["a:latest", "b:latest", "nginx:1"],
        ),
        ("FROM --platform=linux/arm/v7 alpine", &["alpine:latest for linux/arm/v7"]),
        ("FROM --platform=$TARGETPLATFORM alpine", &["alpine:latest"]),
        (
            "ARG V=3.20\nFROM alpine:$V\nFROM alpine:${V}-x\nFROM alpine:${W:-9}",
            &["alpine:3.20", "alpine:3.20-x", "alpine:9"],
        ),
        ("ARG A=1\nARG B=\"$A.2\" C='x'\nFROM alpine:$B$C", &["alpine:1.2x"]),
        ("FROM alpine\nARG V=1\nRUN echo $V ${nonsense\nFROM busybox", &["alpine:latest", "busybox:latest"]),
        ("FROM alpine \\\n# a comment\n\n AS x\nFROM x", &["alpine:latest"]),
        ("# escape=`\nFROM alpine `\n AS x\nFROM x", &["alpine:latest"]),
        (
            "FROM alpine\nRUN <<EOF cat <<-'TWO'\nFROM not-this\nEOF\n\tFROM nor-this\n\tTWO\nFROM busybox",
            &["alpine:latest", "busybox:latest"],
        ),
        (
            "FROM alpine\nRUN --mount=type=bind,from=golang:1.22,target=/go go\nRUN x --from=shell --mount=from=y",
            &["alpine:latest", "golang:1.22"],
        ),
        ("FROM alpine\nONBUILD COPY --from=busybox / /", &["alpine:latest", "busybox:latest"]),
        (
            "FROM ghcr.io/a/b@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            &["ghcr.io/a/b@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"],
        ),
        ("FROM alpine\nRUN a << b\nRUN x <<< y\nFROM busybox", &["alpine:latest", "busybox:latest"]),
        ("#!/usr/bin/env docker\nFROM Alpine:3 AS x\nFROM x", &[]),
    ];
    for (text, images) in table {
        if images.is_empty() {
            assert!(dockerfile(text).unwrap_err().message.contains("lowercase"), "{text}");
        } else {
            assert_eq!(built(text), images, "{text}");
        }
    }
    assert_eq!(
        built("# syntax=docker/dockerfile:1\n\nFROM --platform=$BUILDPLATFORM alpine"),
        [format!("docker.io/docker/dockerfile:1 for {own}"), format!("alpine:latest for {own}")]
    );
    assert_eq!(built("# about this\n# syntax=docker/dockerfile:1\nFROM alpine"), ["alpine:latest"]);
}

#[test]
fn a_build_is_given_arguments_a_target_and_contexts() {
    let text = "ARG V=1\nFROM alpine:$V AS one\nFROM busybox AS two\nFROM one AS three\nCOPY --from=base / /";
    let given = Given {
        args: vars(&[("V", "2")]),
        target: Some("three".into()),
        contexts: ["base".to_owned()].into(),
    };
    assert_eq!(names(&dockerfile::images(text, &given).unwrap()), ["alpine:2"]);
    let unknown = Given { target: Some("four".into()), ..Given::default() };
    assert!(dockerfile::images(text, &unknown).unwrap_err().message.contains("no stage \"four\""));
}

#[test]
fn a_dockerfile_that_means_nothing_is_refused_with_its_line() {
    for (text, line, why) in [
        ("", 1, "no FROM"),
        ("RUN x\nFROM a", 1, "before any FROM"),
        ("\n\nFROM", 3, "is written"),
        ("FROM a b c d", 1, "is written"),
        ("FROM a\nFROM alpine:$V", 2, "ARG V="),
        ("FROM $V", 1, "has no value"),
        ("FROM a\nRUN <<EOF\nx", 2, "<<EOF is not closed"),
        ("FROM \"a", 1, "quote"),
        ("FROM --platform=amd64 a", 1, "os/architecture"),
        ("FROM --flag a", 1, "no flag"),
        ("FROM a\nCOPY --from=$X / /", 2, "without variables"),
        ("FROM a\nCOPY --from=7 / /", 2, "no stage 7"),
        ("FROM ${V", 1, "closing brace"),
        ("ARG A=aaaaaaaaaaaaaaaa\nFROM ${A:0:1}", 2, "not understood"),
    ] {
        let refused = dockerfile(text).expect_err(text);
        assert_eq!(refused.line, line, "{text}: {refused:?}");
        assert!(refused.message.contains(why), "{text}: {refused:?}");
    }
    let doubling: Vec<String> = (0..100).map(|n| format!("ARG A{}=$A{n}$A{n}", n + 1)).collect();
    let refused = dockerfile(&format!("ARG A0=xx\n{}\nFROM $A100", doubling.join("\n"))).unwrap_err();
    assert!(refused.message.contains("longer than"), "a small file stays small: {refused:?}");
}

fn composed(text: &str, given: &[(&str, &str)]) -> compose::Found {
    compose::images(text, &vars(given)).unwrap()
}

#[test]
fn a_compose_file_needs_the_images_of_its_services() {
    let text = "
x-base: &base
  image: redis:${REDIS:-7}
  platform: linux/arm64
services:
  web: {image: 'nginx:1.27'}
  db:
    image: \"postgres:${PG}\"
  cache:
    <<: *base
  again: *base
  mine:
    image: registry.example.com/mine
    build: .
  runs-mine:
    image: registry.example.com/mine
  pinned: {image: \"ghcr.io/a/b:1\", platform: }
";
    let found = composed(text, &[("PG", "16")]);
    assert_eq!(names(&found.list), ["nginx:1.27", "postgres:16", "redis:7 for linux/arm64", "ghcr.io/a/b:1"]);
    assert_eq!(found.list.notes, [""; 0]);
    assert_eq!(found.builds.len(), 1);
    assert_eq!((found.builds[0].context.as_str(), found.builds[0].dockerfile.as_str()), (".", "Dockerfile"));
}

#[test]
fn variables_stand_for_what_they_are_given_in_every_way_they_are_written() {
    let table = [
        ("a:$V", Ok("a:1")),
        ("a:${V}", Ok("a:1")),
        ("a:${U:-2}", Ok("a:2")),
        ("a:${E:-2}", Ok("a:2")),
        ("${E-a}a", Ok("a:latest")),
        ("a:${U:-${V}}", Ok("a:1")),
        ("a${V:+b}", Ok("ab:latest")),
        ("a${U:+b}", Ok("a:latest")),
        ("a:${V:?no}", Ok("a:1")),
        ("a:${U:?give one}", Err("U is not set: give one")),
        ("a:${U?}", Err("U is not set: it is needed")),
        ("a:${U", Err("closing brace")),
        ("a:${}", Err("names no variable")),
        ("a:$", Err("names no variable")),
        ("a:$$V", Err("no image name")),
        ("a:${U}", Err("no image name")),
        ("a:${V/1/2}", Err("not understood")),
    ];
    for (image, result) in table {
        let text = format!("services:\n  x:\n    image: '{image}'\n");
        let found = compose::images(&text, &vars(&[("V", "1"), ("E", "")]));
        match result {
            Ok(name) => assert_eq!(names(&found.unwrap().list), [name], "{image}"),
            Err(why) => {
                let refused = found.expect_err(image);
                assert_eq!(refused.line, 3, "{image}");
                assert!(refused.message.contains(why), "{image}: {refused:?}");
            }
        }
    }
    let unset = composed("services: {x: {image: 'alpine${U}'}}", &[]);
    assert_eq!(names(&unset.list), ["alpine:latest"]);
    assert!(unset.list.notes[0].contains("variable U is not set"), "{:?}", unset.list.notes);
}

#[test]
fn builds_are_told_with_what_they_are_given() {
    let text = "
services:
  a: {build: ./a}
  b:
    build:
      context: b
      dockerfile: ../Dockerfile.b
      target: final
      args: {V: '2', FROM_ENV: }
      additional_contexts: {base: 'docker-image://alpine:3', src: ./src}
  c:
    build:
      dockerfile_inline: |
        FROM alpine:$$V
      args: ['V=3', FROM_ENV, UNSET]
";
    let found = composed(text, &[("FROM_ENV", "yes")]);
    let [a, b, c] = found.builds.as_slice() else { panic!("three") };
    assert_eq!(a.context, "./a");
    assert_eq!((b.context.as_str(), b.dockerfile.as_str()), ("b", "../Dockerfile.b"));
    let given = Given {
        args: vars(&[("V", "2"), ("FROM_ENV", "yes")]),
        target: Some("final".into()),
        contexts: ["base".to_owned(), "src".to_owned()].into(),
    };
    assert_eq!(b.given, given);
    assert_eq!(names(&found.list), ["alpine:3"]);
    assert_eq!(c.given.args, vars(&[("V", "3"), ("FROM_ENV", "yes")]));
    assert_eq!(c.inline.as_deref(), Some("FROM alpine:$V"));
}

#[test]
fn a_compose_file_that_means_nothing_is_refused_with_its_line() {
    for (text, line, why) in [
        ("", 1, "empty"),
        ("just text", 1, "mapping"),
        ("version: '3'", 1, "no `services:`"),
        ("services:\n  - a", 2, "1 to 1000"),
        ("services:\n  a: text", 2, "no mapping"),
        ("services:\n  a:\n    image: [x]", 3, "text is expected"),
        ("services:\n  a:\n    image: Not A Name", 3, "service a"),
        ("services:\n  a:\n    platform: amd64\n    image: x", 3, "os/architecture"),
        ("services:\n  a: {image: x", 3, "not YAML"),
        ("services:\n\ta: x", 2, "not YAML"),
        ("services: &s\n  a: *s", 2, "inside what it names"),
    ] {
        let refused = compose::images(text, &HashMap::new()).expect_err(text);
        assert!(refused.message.contains(why), "{text}: {refused:?}");
        assert!(refused.line.abs_diff(line) <= 1, "{text}: {refused:?}");
    }
    let deep = "[".repeat(5000);
    assert!(compose::images(&deep, &HashMap::new()).is_err());
    let nested: Vec<String> = (0..100).map(|n| format!("{}a:", " ".repeat(n))).collect();
    let nested = nested.join(
        "
",
    );
    assert!(compose::images(&nested, &HashMap::new()).unwrap_err().message.contains("deep"));
}

#[test]
fn merges_that_multiply_cost_nothing() {
    let mut text = "x0: &x0 {image: alpine}\n".to_owned();
    for n in 1..60 {
        let before = n - 1;
        text = format!("{text}x{n}: &x{n}\n  <<: [*x{before}, *x{before}]\n");
    }
    text.push_str("services:\n  a:\n    <<: [*x59, *x58]\n");
    assert_eq!(names(&composed(&text, &[]).list), ["alpine:latest"]);
}

#[test]
fn env_files_are_read_as_docker_reads_them() {
    let text = "# comment\nA=1\nexport B = two words # comment\nC='$A #x'\nD=\"$A\\n${B}\"\nE=a#b\nF=\nG: 7\nBARE\nH=\"two\nlines\" # end\nI=$A$OUT\n";
    let said = dotenv::read(text, &vars(&[("OUT", "env")])).unwrap();
    let table = [
        ("A", "1"),
        ("B", "two words"),
        ("C", "$A #x"),
        ("D", "1\ntwo words"),
        ("E", "a#b"),
        ("F", ""),
        ("G", "7"),
        ("H", "two\nlines"),
        ("I", "1env"),
    ];
    assert_eq!(said, vars(&table));
    for (text, line) in [("A=1\nB='x", 2), ("A=1\n\nb c=2", 3), ("=1", 1), ("A=${", 1)] {
        assert_eq!(dotenv::read(text, &HashMap::new()).unwrap_err().line, line, "{text:?}");
    }
}

#[test]
fn a_file_is_read_with_what_stands_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| {
        let file = dir.path().join(name);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, text).unwrap();
        file
    };
    put(".env", "PG=15\nGO=1.21\n");
    put("app/Dockerfile", "ARG GO=1.20\nFROM golang:$GO\nCOPY --from=busybox:1 / /\n");
    let text = "services:\n  db: {image: 'postgres:$PG'}\n  app: {build: {context: app, args: {GO: $GO}}}\n  far: {build: 'https://example.com/x.git'}\n";
    let compose = put("compose.yaml", text);
    let list = read(&compose, &vars(&[("GO", "1.22")])).unwrap();
    assert_eq!(names(&list), ["postgres:15", "golang:1.22", "busybox:1"], "the environment comes first");
    assert!(list.notes[0].contains("https://example.com/x.git"), "{:?}", list.notes);
    let by_name = put("Dockerfile.dev", "FROM alpine\n");
    assert_eq!(names(&read(&by_name, &HashMap::new()).unwrap()), ["alpine:latest"]);
    let by_content = put("image", "# the image\nARG X\nFROM alpine\n");
    assert_eq!(names(&read(&by_content, &HashMap::new()).unwrap()), ["alpine:latest"]);
    let stack = put("stack", "services: {a: {image: alpine}}\n");
    assert_eq!(names(&read(&stack, &HashMap::new()).unwrap()), ["alpine:latest"]);
    put("app/Dockerfile", "FROM golang:1\nFROM $NOTHING\n");
    let refused = read(&compose, &HashMap::new()).unwrap_err().to_string();
    assert!(refused.contains("app/Dockerfile:2: "), "{refused}");
    std::fs::write(&compose, "services: {a: {build: nowhere}}").unwrap();
    assert!(read(&compose, &HashMap::new()).unwrap_err().to_string().contains("cannot read"));
    std::fs::write(&compose, [0xff, 0xfe]).unwrap();
    assert!(matches!(read(&compose, &HashMap::new()), Err(ListError::Unreadable { .. })));
}

/// Words of both languages in any order: nearer to what people get wrong than letters are.
fn nonsense() -> impl Strategy<Value = String> {
    let words = prop::sample::select(vec![
        "FROM ",
        "ARG A=",
        "COPY --from=",
        "RUN <<EOF",
        "EOF",
        "\n",
        "\\\n",
        "# syntax=",
        "# escape=`\n",
        " AS ",
        "${A:-",
        "}",
        "$",
        "$$",
        "\"",
        "services:",
        "  ",
        "image: ",
        "build: ",
        "- ",
        "<<: *a",
        "&a ",
        "*a",
        "{",
        "[",
        "]",
        ": ",
        "? ",
        "| ",
        "> ",
        "!t ",
        "---\n",
        "%YAML",
        "alpine",
        "\t",
        "'",
        "0",
        "--platform=linux/arm ",
        "\u{85}",
        "é",
    ]);
    prop::collection::vec(words, 0..60).prop_map(|words| words.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]
    #[test]
    fn no_nonsense_panics(text in nonsense()) {
        let _ = dockerfile(&text);
        let _ = compose::images(&text, &vars(&[("A", "$A")]));
        let _ = dotenv::read(&text, &vars(&[("A", "1")]));
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,200}") {
        let _ = dockerfile(&text);
        let _ = compose::images(&text, &HashMap::new());
        let _ = dotenv::read(&text, &HashMap::new());
    }
}
