//! The dependency rules of `docs/ARCHITECTURE.md`, kept by reading `cargo tree` and the `use crate::` lines.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
};

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("core is in the workspace")
        .to_path_buf()
}

/// Names of all crates that `package` is built from, without its tests'.
fn dependencies(package: &str) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--offline",
            "--locked",
            "--edges",
            "normal,build",
            "--prefix",
            "none",
            "--format",
            "{p}",
        ])
        .args(["--package", package])
        .current_dir(workspace())
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "cargo tree: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let tree = String::from_utf8(output.stdout).expect("cargo tree prints UTF-8");
    tree.lines()
        .skip(1)
        .filter_map(|line| line.split(' ').next())
        .map(str::to_owned)
        .collect()
}

#[test]
fn core_does_no_io() {
    let core = dependencies("sider-core");
    for banned in [
        "mio",
        "socket2",
        "hyper",
        "hyper-util",
        "fjall",
        "madsim",
        "reqwest",
    ] {
        assert!(!core.contains(banned), "core must not depend on {banned}");
    }
    assert!(core.contains("openraft"), "the tree was read");
}

#[test]
fn runtimes_never_meet() {
    let ours = |package: &str| -> Vec<String> {
        dependencies(package)
            .into_iter()
            .filter(|name| name == "sider" || name.starts_with("sider-"))
            .collect()
    };
    assert_eq!(ours("sider-core"), Vec::<String>::new());
    assert_eq!(ours("sider-runtime-tokio"), ["sider-core"]);
    assert_eq!(ours("sider-runtime-sim"), ["sider-core"]);
    assert_eq!(ours("sider"), ["sider-core", "sider-runtime-tokio"]);
    assert_eq!(ours("sider-sim-tests"), ["sider-core", "sider-runtime-sim"]);
    assert!(
        !dependencies("sider").contains("madsim"),
        "production never links the simulator"
    );
}

/// A module of core, and the modules of core that it may import.
const LAYERS: [(&str, &[&str]); 8] = [
    ("limits", &[]),
    ("registry", &["limits"]),
    ("runtime", &["limits"]),
    ("probing", &["limits", "registry", "runtime"]),
    ("observe", &["registry", "runtime"]),
    ("raft", &["limits", "registry", "runtime", "observe"]),
    (
        "server",
        &["limits", "registry", "runtime", "probing", "observe", "raft"],
    ),
    (
        "api",
        &["limits", "registry", "runtime", "observe", "raft", "server"],
    ),
];

fn sources(path: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(path)
        .expect("a source folder")
        .map(|entry| entry.expect("an entry").path())
    {
        if entry.is_dir() {
            sources(&entry, into);
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            into.push(entry);
        }
    }
}

/// First segments of all `crate::…` paths of a file, comments aside; of grouped imports, each member's.
fn imports(text: &str) -> BTreeSet<String> {
    let code: String = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n");
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut member = String::new();
            for c in group.chars() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => {
                        found.insert(first_segment(&member));
                        member.clear();
                        continue;
                    }
                    _ => {}
                }
                member.push(c);
            }
            found.insert(first_segment(&member));
        } else {
            found.insert(first_segment(rest));
        }
    }
    found.remove("");
    found
}

fn first_segment(path: &str) -> String {
    path.trim()
        .chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_')
        .collect()
}

#[test]
fn imports_are_read() {
    let text = "use crate::{limits, raft::{A, b::C}, server};\n// crate::api\nlet x = crate::registry::y();";
    let expected: BTreeSet<String> = ["limits", "raft", "registry", "server"].map(str::to_owned).into();
    assert_eq!(imports(text), expected);
}

#[test]
fn layers_of_core_import_downwards_only() {
    let src = workspace().join("core/src");
    for (layer, allowed) in LAYERS {
        let mut files = Vec::new();
        let single = src.join(layer).with_extension("rs");
        if single.exists() {
            files.push(single);
        }
        if src.join(layer).is_dir() {
            sources(&src.join(layer), &mut files);
        }
        assert!(!files.is_empty(), "core has no module {layer}");
        for file in files {
            let text = std::fs::read_to_string(&file).expect("a source file");
            for import in imports(&text) {
                assert!(
                    import == layer || allowed.contains(&import.as_str()),
                    "{} imports crate::{import}; {layer} may import {allowed:?}",
                    file.display()
                );
            }
        }
    }
}

#[test]
fn only_raft_names_openraft() {
    let src = workspace().join("core/src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    for file in files.iter().filter(|file| !file.starts_with(src.join("raft"))) {
        let text = std::fs::read_to_string(file).expect("a source file");
        let named = text
            .lines()
            .any(|line| !line.trim_start().starts_with("//") && line.contains("openraft"));
        assert!(!named, "{} names openraft", file.display());
    }
}

#[test]
fn core_does_not_know_its_runtime() {
    let src = workspace().join("core/src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    for file in files {
        let text = std::fs::read_to_string(&file).expect("a source file");
        for banned in [
            "cfg(madsim",
            "cfg!(madsim",
            "cfg!(test",
            "cfg(not(test",
            "cfg(not(madsim",
            "tokio::spawn",
            "tokio::select!",
        ] {
            assert!(!text.contains(banned), "{} contains {banned}", file.display());
        }
    }
}
