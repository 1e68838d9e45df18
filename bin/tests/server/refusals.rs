//! What a server does not start with: one line that says why, and an exit code that is not 0.

use std::{net::TcpListener, path::Path};

use crate::support::{Place, run};

/// Starts a server that must refuse; gives its only line.
fn refusal(flags: &[&str]) -> String {
    let mut all = flags.to_vec();
    // Nothing but the error itself: what is logged below it is not the point here.
    all.extend(["-log-level", "error"]);
    let (status, stdout, stderr) = run(&all);
    assert!(!status.success(), "{flags:?} {status}");
    assert_eq!(stdout, "");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.starts_with("sds-server: "), "{stderr}");
    stderr
}

fn flags(place: &Place) -> Vec<String> {
    let data = place.data.display().to_string();
    [
        "-http",
        &place.http,
        "-raft-id",
        &place.id,
        "-raft-bind",
        &place.raft,
        "-raft-dir",
        &data,
    ]
    .map(str::to_owned)
    .to_vec()
}

fn refusal_at(place: &Place) -> String {
    let flags = flags(place);
    refusal(&flags.iter().map(String::as_str).collect::<Vec<_>>())
}

#[tokio::test]
async fn a_data_directory_in_use() {
    let folder = tempfile::tempdir().unwrap();
    let first = Place::new("node1", folder.path());
    let running = first.start(&[]).await;
    let second = Place {
        data: first.data.clone(),
        ..Place::new("node2", folder.path())
    };
    let line = refusal_at(&second);
    let expected = format!(
        "data directory {} is in use by another process",
        first.data.display()
    );
    assert!(line.contains(&expected), "{line}");
    running.ready().await;
}

#[tokio::test]
async fn a_port_in_use() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::new("node1", folder.path());
    let taken = TcpListener::bind(&place.http).unwrap();
    assert!(refusal_at(&place).contains(&format!(
        "-http: can't listen on {}: the port is in use",
        place.http
    )));
    drop(taken);
    let _taken = TcpListener::bind(&place.raft).unwrap();
    assert!(refusal_at(&place).contains(&format!(
        "-raft-bind: can't listen on {}: the port is in use",
        place.raft
    )));
    assert!(!place.data.exists(), "nothing was touched");
}

#[tokio::test]
async fn a_data_directory_that_can_not_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let place = Place {
        data: file.join("data"),
        ..Place::new("node1", folder.path())
    };
    let line = refusal_at(&place);
    assert!(
        line.contains(&format!(
            "data directory {} can't be written",
            place.data.display()
        )),
        "{line}"
    );
}

#[tokio::test]
async fn corrupt_data() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::new("node1", folder.path());
    let server = place.start(&[]).await;
    server.ready().await;
    for n in 0..20 {
        server.register("api", &format!("api-{n}")).await.unwrap();
    }
    server.kill();
    let journal = place.data.join("store/0.jnl");
    let bytes = std::fs::read(&journal).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    for at in [used / 4, used / 2, used - 40] {
        let mut rotten = bytes.clone();
        rotten[at] ^= 0x20;
        std::fs::write(&journal, rotten).unwrap();
        let line = refusal_at(&place);
        assert!(
            line.contains(&format!("data directory {} is corrupt", place.data.display())),
            "{line}"
        );
    }
    std::fs::write(&journal, bytes).unwrap();
    let server = place.start(&[]).await;
    server.ready().await;
    assert_eq!(server.instances("api").await.len(), 20);
}

#[test]
fn bad_flags() {
    for (flags, complaint) in [
        (&["-htpp", ":1"][..], "--htpp"),
        (&["-http"], "--http"),
        (&["-http", "8500"], "-http"),
        (&["-raft-bootstrap", "maybe"], "--raft-bootstrap"),
        (&["-raft-id", "a/b"], "-raft-id"),
        (&["-join", "nowhere"], "-join"),
        (&["-grpc", ":2379"], "-grpc"),
        (&["-dns", ":8600"], "-dns"),
        (&["-log-format", "xml"], "-log-format"),
        (&["-config", "/no/such/file.yaml"], "/no/such/file.yaml"),
        (&["stray"], "stray"),
    ] {
        let line = refusal(flags);
        assert!(line.contains(complaint), "{complaint}: {line}");
    }
    let (status, _, stderr) = run(&["-log-level", "loud"]);
    assert!(!status.success());
    assert!(
        stderr.starts_with("sds-server: -log-level: \"loud\" is not a log level"),
        "{stderr}"
    );
}

#[test]
fn bad_config_files() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    for (name, text, complaint) in [
        ("a.yaml", "peers: [{id: a}]", "peers[0].raft_addr"),
        (
            "b.json",
            r#"{"heartbeat_interval": "soon"}"#,
            "heartbeat_interval",
        ),
        ("c.toml", "htttp = ':1'", "htttp: unknown key"),
        (
            "d.yaml",
            "peers: [{id: a, raft_addr: '127.0.0.1:1'}]",
            "-raft-id must be one of a",
        ),
        ("e.yaml", "election_timeout_min: 10ms", "election_timeout_min"),
        ("f.json", "{", "f.json"),
    ] {
        let line = refusal(&["-config", &write(name, text), "-raft-id", "x"]);
        assert!(line.contains(complaint), "{name}: {line}");
    }
}

#[test]
fn help_and_version_are_no_errors() {
    for flag in ["-help", "--help", "-h"] {
        let (status, stdout, stderr) = run(&[flag]);
        assert!(status.success() && stderr.is_empty(), "{stderr}");
        for name in [
            "--http",
            "--raft-bootstrap",
            "--join",
            "--config",
            "SIDER_RAFT_ID",
        ] {
            assert!(stdout.contains(name), "{flag} does not tell of {name}");
        }
    }
    for flag in ["-version", "--version"] {
        let (status, stdout, _) = run(&[flag]);
        assert!(status.success());
        assert_eq!(stdout.trim(), concat!("sds-server ", env!("CARGO_PKG_VERSION")));
    }
}

#[test]
fn the_example_of_a_config_file_is_sound() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/cluster.demo.yaml");
    let file = sider::config::ConfigFile::read(&path).unwrap();
    assert_eq!(file.peers.keys().collect::<Vec<_>>(), ["node1", "node2", "node3"]);
}
