//! What a prepared query says: its definition as Consul writes it, and templates that are filled in.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::{
    body::Fields,
    duration,
    error::{ApiError, echo},
};
use crate::{
    limits::{NAME_BYTES_MAX, PREPARED_QUERY_BYTES_MAX},
    registry::KeyValue,
};

/// Longest regular expression of a template, compiled, in bytes.
const REGEX_BYTES: usize = 1 << 20;

/// A definition, as it is stored and shown but for its indexes.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Definition(Value);

impl Definition {
    /// Parses the body of a request.
    pub(super) fn parse(body: &Value, id: &str) -> Result<Definition, ApiError> {
        let fields = Fields::of(body)?;
        let invalid = |reason: &str| ApiError::server_error(format!("Invalid prepared query: {reason}"));
        if fields.text("Session")?.is_some() {
            return Err(invalid("sessions are not supported: expected none"));
        }
        let name = fields.bounded_text("Name", NAME_BYTES_MAX)?;
        let service = fields.object("Service")?;
        let Some(of_service) = service
            .as_ref()
            .map(|service| service.text("Service"))
            .transpose()?
            .flatten()
        else {
            return Err(invalid("Must provide a Service name to query"));
        };
        let service = service.as_ref().expect("its name was just found in it");
        let ttl = match fields.object("DNS")? {
            Some(dns) => dns.text("TTL")?.unwrap_or_default().to_owned(),
            None => String::new(),
        };
        if !ttl.is_empty() && duration::parse(&ttl).is_none_or(|ttl| ttl < 0) {
            return Err(invalid(&format!("Bad DNS TTL '{}'", echo(&ttl))));
        }
        let failover = match service.object("Failover")? {
            Some(failover) => {
                failover.refuse_deep("Targets")?;
                json!({
                "NearestN": failover.number("NearestN", 0..=u32::MAX)?.unwrap_or_default(),
                "Datacenters": some(failover.texts("Datacenters")?),
                "Targets": some(failover.list("Targets")?.to_vec()),
                })
            }
            None => json!({ "NearestN": 0, "Datacenters": null, "Targets": null }),
        };
        let definition = Definition(json!({
            "ID": id,
            "Name": name,
            "Session": "",
            "Token": "",
            "Template": template(&fields)?,
            "Service": {
                "Service": of_service,
                "SamenessGroup": "",
                "Failover": failover,
                "OnlyPassing": service.flag("OnlyPassing")?,
                "IgnoreCheckIDs": some(service.texts("IgnoreCheckIDs")?),
                "Near": service.text("Near")?.unwrap_or_default(),
                "Tags": some(service.texts("Tags")?),
                "NodeMeta": some(service.text_map("NodeMeta")?.into_iter().collect::<Vec<_>>()).map(object),
                "ServiceMeta": some(service.text_map("ServiceMeta")?.into_iter().collect::<Vec<_>>()).map(object),
                "Connect": service.flag("Connect")?,
                "Peer": service.text("Peer")?.unwrap_or_default(),
            },
            "DNS": { "TTL": ttl },
        }));
        if definition.is_template() {
            check_template(&definition.0["Service"], "Service")?;
        }
        match definition.encode().len() {
            bytes if bytes > PREPARED_QUERY_BYTES_MAX => Err(invalid(&format!(
                "expected at most {PREPARED_QUERY_BYTES_MAX} bytes, got {bytes}"
            ))),
            _ => Ok(definition),
        }
    }

    /// What is stored.
    pub(super) fn encode(&self) -> Bytes {
        super::encode::to_bytes(&self.0)
    }

    /// What was stored.
    pub(super) fn decode(stored: &KeyValue) -> Result<Definition, ApiError> {
        let value = serde_json::from_slice(&stored.value);
        value
            .map(Definition)
            .map_err(|error| ApiError::server_error(format!("a stored query can't be read: {error}")))
    }

    /// It with its indexes.
    pub(super) fn body(&self, stored: &KeyValue) -> Value {
        let mut body = self.0.clone();
        body["CreateIndex"] = stored.create_index.into();
        body["ModifyIndex"] = stored.modify_index.into();
        body
    }

    /// Its name; a query may have none.
    pub(super) fn name(&self) -> Option<&str> {
        self.0["Name"].as_str().filter(|name| !name.is_empty())
    }

    pub(super) fn name_length(&self) -> usize {
        self.name().unwrap_or_default().len()
    }

    pub(super) fn is_template(&self) -> bool {
        self.0["Template"]["Type"] == "name_prefix_match"
    }

    /// The service that it asks for.
    pub(super) fn service(&self) -> &str {
        self.0["Service"]["Service"].as_str().unwrap_or_default()
    }

    /// The node whose instances come first.
    pub(super) fn near(&self) -> Option<&str> {
        self.0["Service"]["Near"].as_str().filter(|near| !near.is_empty())
    }

    pub(super) fn only_passing(&self) -> bool {
        self.0["Service"]["OnlyPassing"] == true
    }

    /// Whether it asks for the instances through which a mesh reaches the service.
    pub(super) fn connect(&self) -> bool {
        self.0["Service"]["Connect"] == true
    }

    pub(super) fn dns(&self) -> &Value {
        &self.0["DNS"]
    }

    /// A list of its service's, empty if it is not there.
    pub(super) fn texts(&self, name: &str) -> Vec<String> {
        let list = self.0["Service"][name].as_array();
        let texts = list
            .into_iter()
            .flatten()
            .filter_map(|item| item.as_str().map(str::to_owned));
        texts.collect()
    }

    /// Pairs of its service's, none if they are not there.
    pub(super) fn pairs(&self, name: &str) -> Vec<(String, String)> {
        let pairs = self.0["Service"][name].as_object();
        let pair =
            |(key, value): (&String, &Value)| (key.clone(), value.as_str().unwrap_or_default().to_owned());
        pairs.into_iter().flatten().map(pair).collect()
    }
}

/// `null` for nothing.
fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

fn object(pairs: Vec<(String, String)>) -> Map<String, Value> {
    pairs
        .into_iter()
        .map(|(key, value)| (key, value.into()))
        .collect()
}

fn template(fields: &Fields<'_>) -> Result<Value, ApiError> {
    let Some(template) = fields.object("Template")? else {
        return Ok(json!({ "Type": "", "Regexp": "", "RemoveEmptyTags": false }));
    };
    let kind = template.text("Type")?.unwrap_or_default();
    if !["", "name_prefix_match"].contains(&kind) {
        return Err(ApiError::server_error(format!(
            "Invalid prepared query: Bad Template.Type '{}': expected name_prefix_match",
            echo(kind)
        )));
    }
    let regexp = template.bounded_text("Regexp", NAME_BYTES_MAX)?;
    compile(&regexp)?;
    Ok(json!({
        "Type": kind,
        "Regexp": regexp,
        "RemoveEmptyTags": template.flag("RemoveEmptyTags")?,
    }))
}

fn compile(regexp: &str) -> Result<regex::Regex, ApiError> {
    let regex = regex::RegexBuilder::new(regexp)
        .size_limit(REGEX_BYTES)
        .dfa_size_limit(REGEX_BYTES)
        .build();
    regex.map_err(|_| {
        ApiError::server_error(format!(
            "Invalid prepared query: Bad Template.Regexp '{}'",
            echo(regexp)
        ))
    })
}

/// A template for the name that was asked for: `${name.full}`, `${name.prefix}`, `${name.suffix}` and `${match(N)}` in
/// what it says of its service. Any other query stays as it is.
pub(super) fn fill_in(mut definition: Definition, name: &str) -> Result<Definition, ApiError> {
    if !definition.is_template() {
        return Ok(definition);
    }
    // A template may say the name again and again.
    if name.len() > NAME_BYTES_MAX {
        return Err(ApiError::bad_request(format!(
            "Invalid query name: expected at most {NAME_BYTES_MAX} bytes, got {}",
            name.len()
        )));
    }
    let prefix = definition.name().unwrap_or_default().to_owned();
    let regexp = definition.0["Template"]["Regexp"].as_str().unwrap_or_default();
    let regex = compile(regexp)?;
    let matches = match regexp.is_empty() {
        true => None,
        false => regex.captures(name),
    };
    let value_of = |variable: &str| match variable {
        "name.full" => name.to_owned(),
        "name.prefix" => prefix.clone(),
        "name.suffix" => name.strip_prefix(&prefix).unwrap_or_default().to_owned(),
        other => {
            // There are no segments: that of the agent is nothing.
            let group = group(other).and_then(|number| matches.as_ref()?.get(number));
            group.map_or_else(String::new, |group| group.as_str().to_owned())
        }
    };
    replace(&mut definition.0["Service"], &value_of);
    if definition.0["Template"]["RemoveEmptyTags"] == true
        && let Some(tags) = definition.0["Service"]["Tags"].as_array_mut()
    {
        tags.retain(|tag| tag != "" && tag != "!");
    }
    definition.0["Name"] = name.into();
    Ok(definition)
}

/// Refuses a template that names what there is not, wherever a text of it does.
fn check_template(value: &Value, path: &str) -> Result<(), ApiError> {
    match value {
        Value::String(text) => {
            let bad = |reason: String| {
                ApiError::server_error(format!(
                    "Invalid prepared query: Bad format '{}' in {path}: {reason}",
                    echo(text)
                ))
            };
            let mut rest = text.as_str();
            while let Some((_, after)) = rest.split_once("${") {
                let Some((variable, after)) = after.split_once('}') else {
                    return Err(bad("expected a } behind ${".into()));
                };
                if !is_variable(variable.trim()) {
                    let variable = echo(variable.trim());
                    return Err(bad(format!(
                        "unknown variable accessed: {variable}: expected {VARIABLES}"
                    )));
                }
                rest = after;
            }
            Ok(())
        }
        Value::Array(items) => items.iter().try_for_each(|item| check_template(item, path)),
        Value::Object(fields) => {
            let mut fields = fields.iter();
            fields.try_for_each(|(name, field)| check_template(field, &format!("{path}.{name}")))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
    }
}

/// What a template may name.
const VARIABLES: &str = "name.full, name.prefix, name.suffix, match(N) or agent.segment";

fn is_variable(name: &str) -> bool {
    ["name.full", "name.prefix", "name.suffix", "agent.segment"].contains(&name) || group(name).is_some()
}

/// The group of the regular expression that `match(N)` is.
fn group(variable: &str) -> Option<usize> {
    let number = variable.strip_prefix("match(")?.strip_suffix(')')?;
    number.trim().parse().ok()
}

/// Fills in every text of a value.
fn replace(value: &mut Value, value_of: &impl Fn(&str) -> String) {
    match value {
        Value::String(text) => {
            let mut filled = String::with_capacity(text.len());
            let mut rest = text.as_str();
            while let Some((before, after)) = rest.split_once("${") {
                let Some((variable, after)) = after.split_once('}') else {
                    break;
                };
                filled.push_str(before);
                filled.push_str(&value_of(variable.trim()));
                rest = after;
            }
            filled.push_str(rest);
            *text = filled;
        }
        Value::Array(items) => items.iter_mut().for_each(|item| replace(item, value_of)),
        Value::Object(fields) => fields.values_mut().for_each(|field| replace(field, value_of)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_filled_in_for_the_name_that_was_asked_for() {
        let body = json!({
            "Name": "geo-",
            "Template": { "Type": "name_prefix_match", "Regexp": "^geo-(.*?)-([^-]+)$", "RemoveEmptyTags": true },
            "Service": {
                "Service": "${match(1)}", "Tags": ["${match(2)}", "${match(7)}${agent.segment}", "${ name.suffix }$"],
            },
        });
        let template = Definition::parse(&body, "id").unwrap();
        let filled = fill_in(template, "geo-web-shop-eu").unwrap();
        assert_eq!(filled.service(), "web-shop");
        assert_eq!(filled.texts("Tags"), ["eu", "web-shop-eu$"]);
        assert_eq!(filled.name(), Some("geo-web-shop-eu"));
    }

    #[test]
    fn a_template_that_says_its_name_again_and_again_stays_small() {
        let template = |times: usize| {
            let body = json!({"Name": "", "Template": {"Type": "name_prefix_match"},
                "Service": {"Service": "x", "Tags": ["${name.full}".repeat(times)]}});
            Definition::parse(&body, "id")
        };
        let error = template(PREPARED_QUERY_BYTES_MAX / 12).unwrap_err();
        assert!(
            error.message.contains("expected at most 65536 bytes"),
            "{}",
            error.message
        );
        let largest = template(5_000).unwrap();
        let filled = fill_in(largest.clone(), &"n".repeat(NAME_BYTES_MAX)).unwrap();
        assert!(filled.encode().len() < 4 * 1024 * 1024);
        let error = fill_in(largest, &"n".repeat(NAME_BYTES_MAX + 1)).unwrap_err();
        assert!(
            error.message.starts_with("Invalid query name"),
            "{}",
            error.message
        );
    }

    #[test]
    fn what_is_no_query_is_refused() {
        for (body, reason) in [
            (json!({}), "Must provide a Service name to query"),
            (
                json!({"Service": {"Service": "x"}, "DNS": {"TTL": "soon"}}),
                "Bad DNS TTL 'soon'",
            ),
            (
                json!({"Service": {"Service": "x"}, "Template": {"Type": "other"}}),
                "Bad Template.Type 'other': expected name_prefix_match",
            ),
            (
                json!({"Service": {"Service": "x"}, "Template": {"Regexp": "("}}),
                "Bad Template.Regexp '('",
            ),
            (
                json!({"Service": {"Service": "${bogus}"}, "Template": {"Type": "name_prefix_match"}}),
                "Bad format '${bogus}' in Service.Service: unknown variable accessed: bogus: expected name.full, \
                 name.prefix, name.suffix, match(N) or agent.segment",
            ),
            (
                json!({"Service": {"Service": "x", "Tags": ["${upper(name.full)}"]}, "Template": {"Type": "name_prefix_match"}}),
                "Bad format '${upper(name.full)}' in Service.Tags: unknown variable accessed: upper(name.full): \
                 expected name.full, name.prefix, name.suffix, match(N) or agent.segment",
            ),
            (
                json!({"Service": {"Service": "x${name.full"}, "Template": {"Type": "name_prefix_match"}}),
                "Bad format 'x${name.full' in Service.Service: expected a } behind ${",
            ),
        ] {
            let error = Definition::parse(&body, "id").unwrap_err();
            assert_eq!(error.message, format!("Invalid prepared query: {reason}"));
        }
    }
}
