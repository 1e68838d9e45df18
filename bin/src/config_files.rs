//! Config files of a server: one or several, or folders of them, put together as Consul does. Of what several set, the last
//! has precedence; sections are put together key by key, and lists one behind the other.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::config_text::{in_file, read_value};

/// A service or a check of a file.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Configured {
    /// The file.
    pub(crate) path: PathBuf,
    /// As for `/v1/agent/service/register` or `/v1/agent/check/register`.
    pub(crate) body: Value,
}

/// What all files say together.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Merged {
    /// Their keys, but for services and checks.
    pub(crate) keys: Map<String, Value>,
    /// Their names, for errors.
    pub(crate) names: String,
    /// `service` and `services`.
    pub(crate) services: Vec<Configured>,
    /// `check` and `checks`.
    pub(crate) checks: Vec<Configured>,
}

/// Reads files, and the files of folders in the order of their names.
///
/// # Errors
/// One line that names the file.
pub(crate) fn read_merged(paths: &[PathBuf]) -> Result<Merged, String> {
    let files = expand(paths)?;
    let names: Vec<String> = files.iter().map(|path| path.display().to_string()).collect();
    let mut merged = Merged {
        names: names.join(", "),
        ..Merged::default()
    };
    for path in files {
        let mut keys = match read_value(&path)? {
            Value::Object(keys) => normal(keys).map_err(|error| in_file(&path, &error))?,
            Value::Null => Map::new(),
            other => {
                let error = format!("the file: expected keys with values, found {other}");
                return Err(in_file(&path, &error));
            }
        };
        for (one, several, into) in [
            ("service", "services", &mut merged.services),
            ("check", "checks", &mut merged.checks),
        ] {
            let bodies = bodies(&mut keys, one, several).map_err(|error| in_file(&path, &error))?;
            into.extend(bodies.into_iter().map(|body| Configured {
                path: path.clone(),
                body,
            }));
        }
        merge(&mut merged.keys, keys);
    }
    Ok(merged)
}

/// Files themselves, and those of folders.
fn expand(paths: &[PathBuf]) -> Result<Vec<PathBuf>, String> {
    let mut files = Vec::new();
    for path in paths {
        match path.is_dir() {
            true => files.extend(files_of(path)?),
            false => files.push(path.clone()),
        }
    }
    Ok(files)
}

/// The config files in a folder, by their names.
///
/// # Errors
/// One line that names the folder.
pub(crate) fn files_of(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let failed = |error: std::io::Error| in_file(folder, &error.to_string());
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let file = entry.map_err(failed)?.path();
        let ending = file.extension().and_then(|ending| ending.to_str());
        if matches!(ending, Some("json" | "hcl" | "yaml" | "yml" | "toml")) {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

/// Keys as they are looked for, each once.
fn normal(keys: Map<String, Value>) -> Result<Map<String, Value>, String> {
    let mut normal = Map::new();
    for (key, value) in keys {
        let name = key.to_ascii_lowercase().replace('-', "_");
        if !value.is_null() && normal.insert(name, value).is_some() {
            return Err(format!("{key}: the key is there twice"));
        }
    }
    Ok(normal)
}

fn bodies(keys: &mut Map<String, Value>, one: &str, several: &str) -> Result<Vec<Value>, String> {
    let mut found = Vec::new();
    match keys.remove(several) {
        None => {}
        Some(Value::Array(bodies)) => found.extend(bodies),
        Some(other) => return Err(format!("{several}: expected a list, found {other}")),
    }
    found.extend(keys.remove(one));
    Ok(found)
}

fn merge(into: &mut Map<String, Value>, from: Map<String, Value>) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Object(before)), Value::Object(section)) => merge(before, section),
            (Some(Value::Array(before)), Value::Array(list)) => before.extend(list),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn files_are_put_together_and_the_last_has_precedence() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let first = write(
            "z.json",
            r#"{"ports": {"http": 1, "server": 2}, "node_name": "a", "retry_join": ["x"]}"#,
        );
        std::fs::create_dir(folder.path().join("d")).unwrap();
        write(
            "d/b.json",
            r#"{"node-name": "b", "check": {"name": "c", "ttl": "10s"}, "retry_join": ["y"]}"#,
        );
        write(
            "d/a.yaml",
            "services: [{name: one}]\nservice: {name: two}\nports: {http: 3}\n",
        );
        write("d/empty.json", "");
        write("d/notes.txt", "{");
        let merged = read_merged(&[first, folder.path().join("d")]).unwrap();
        assert_eq!(
            Value::Object(merged.keys),
            json!({"ports": {"http": 3, "server": 2}, "node_name": "b", "retry_join": ["x", "y"]})
        );
        let bodies: Vec<_> = merged
            .services
            .iter()
            .map(|service| service.body["name"].as_str())
            .collect();
        assert_eq!(bodies, [Some("one"), Some("two")]);
        assert_eq!(merged.checks[0].body["ttl"], "10s");
        assert!(merged.checks[0].path.ends_with("d/b.json"));
    }

    #[test]
    fn errors_name_the_file() {
        let folder = tempfile::tempdir().unwrap();
        for (name, text, named) in [
            ("a.json", "[1]", "expected keys with values"),
            ("b.json", r#"{"services": {}}"#, "services: expected a list"),
            (
                "c.json",
                r#"{"http": ":1", "HTTP": ":2"}"#,
                "the key is there twice",
            ),
            ("d.json", "{", "EOF"),
        ] {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            let error = read_merged(&[path]).unwrap_err();
            assert!(error.contains(name) && error.contains(named), "{error}");
        }
        assert!(
            read_merged(&["/no/such.json".into()])
                .unwrap_err()
                .contains("/no/such.json")
        );
    }
}
