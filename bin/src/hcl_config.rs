//! Config files in HCL, as Consul reads them: a block is an object, and a list where it may be there several times.

use serde_json::{Map, Value};

/// Blocks that may be there several times, with the key of the list that they come to.
const REPEATED: [(&str, &str); 2] = [("service", "services"), ("check", "checks")];

/// A file as if it had been written in JSON.
///
/// # Errors
/// Where it is no HCL, and why.
pub(crate) fn parse(text: &str) -> Result<Value, String> {
    let mut keys: Map<String, Value> = hcl::from_str(text).map_err(|error| error.to_string())?;
    gather(&mut keys);
    for service in list_of(&mut keys, "services") {
        if let Value::Object(service) = service {
            gather(service);
        }
    }
    Ok(Value::Object(keys))
}

/// Makes lists of the blocks that may be there several times.
fn gather(keys: &mut Map<String, Value>) {
    for (one, several) in REPEATED {
        let mut all = Vec::new();
        for key in [several, one] {
            match keys.remove(key) {
                None => {}
                Some(Value::Array(bodies)) => all.extend(bodies),
                Some(body) => all.push(body),
            }
        }
        if !all.is_empty() {
            keys.insert(several.to_owned(), all.into());
        }
    }
}

fn list_of<'a>(keys: &'a mut Map<String, Value>, key: &str) -> impl Iterator<Item = &'a mut Value> {
    let list = keys.get_mut(key).and_then(Value::as_array_mut);
    list.into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn blocks_are_objects_and_lists_of_them() {
        let parsed = parse(
            r#"
            # An agent.
            node_name  = "n"
            retry_join = ["a", "b"]
            ports { http = 8510 }
            enable_script_checks = true
            service {
              name = "web"
              port = 80
              meta = { rack = "r1" }
              check {
                id   = "beat"
                ttl  = "10s"
              }
              check {
                http     = "http://localhost:80/"
                interval = "5s"
                header   = { "X-Key" = ["a"] }
              }
            }
            service {
              name   = "db"
              checks = [{ tcp = "localhost:1", interval = "5s" }]
            }
            check {
              name = "disk"
              args = ["/bin/true"]
            }
            "#,
        );
        let expected = json!({
            "node_name": "n", "retry_join": ["a", "b"], "ports": {"http": 8510}, "enable_script_checks": true,
            "services": [
                {"name": "web", "port": 80, "meta": {"rack": "r1"}, "checks": [
                    {"id": "beat", "ttl": "10s"},
                    {"http": "http://localhost:80/", "interval": "5s", "header": {"X-Key": ["a"]}},
                ]},
                {"name": "db", "checks": [{"tcp": "localhost:1", "interval": "5s"}]},
            ],
            "checks": [{"name": "disk", "args": ["/bin/true"]}],
        });
        assert_eq!(parsed, Ok(expected));
        assert_eq!(parse(""), Ok(json!({})));
        let one = parse("services = [{ name = \"a\" }]\nservice { name = \"b\" }");
        assert_eq!(one, Ok(json!({"services": [{"name": "a"}, {"name": "b"}]})));
    }

    #[test]
    fn what_is_no_hcl_is_an_error_that_says_where() {
        let error = parse("node_name = \"n\"\nservice {").unwrap_err();
        assert!(error.contains("line 2"), "{error}");
    }
}
