//! `?near`: to who asks through an agent, what is on its node first. There are no distances, so that is all that is known of
//! who is near; who asks a server itself is near to nobody.

use std::borrow::Cow;

use axum::response::Response;
use http::{HeaderMap, Uri};
use serde::Deserialize;

use super::{AN_AGENT, FROM_AN_AGENT, options::Parameters, reply::rewritten};
use crate::registry::NodeName;

/// What paths begin with whose answers are lists with a node in each entry, and are ordered by Consul, too.
const LISTS: [&str; 8] = [
    "/v1/catalog/connect/",
    "/v1/catalog/nodes",
    "/v1/catalog/service/",
    "/v1/health/checks/",
    "/v1/health/connect/",
    "/v1/health/ingress/",
    "/v1/health/service/",
    "/v1/health/state/",
];

/// What stands for the node of whoever is asked.
const ASKED: &str = "_agent";

/// The node that a request for a list, sent on by its agent, asks to be near to.
pub(super) fn wanted(uri: &Uri, headers: &HeaderMap) -> Option<Box<str>> {
    let mentioned = uri.query().is_some_and(|query| query.contains("near="));
    if !mentioned || !LISTS.iter().any(|list| uri.path().starts_with(list)) {
        return None;
    }
    let agent = sender(headers)?;
    let parameters = Parameters::of(uri).ok()?;
    let near = parameters.text("near")?;
    (near == ASKED || near.eq_ignore_ascii_case(agent)).then(|| agent.into())
}

/// The node that a value names: `_agent` is that of the agent that sent the request on, or else the server's own.
pub(super) fn node<'a>(value: &'a str, headers: &'a HeaderMap, own: &'a NodeName) -> &'a str {
    match value {
        ASKED => sender(headers).unwrap_or(own.as_str()),
        node => node,
    }
}

/// The node of the agent that sent a request on, as it says: nothing but an order hangs on it.
fn sender(headers: &HeaderMap) -> Option<&str> {
    let sender = std::str::from_utf8(headers.get(FROM_AN_AGENT)?.as_bytes()).ok()?;
    (sender != AN_AGENT).then_some(sender)
}

/// Moves a node's entries to the front of a list; the others stay in their order, and what is no list stays as it is.
pub(super) async fn sort(response: Response, node: &str) -> Response {
    if !response.status().is_success() {
        return response;
    }
    rewritten(response, |list| sorted(list, node)).await
}

/// An entry of a list: of a node, or with one in it.
#[derive(Deserialize)]
struct Entry<'a> {
    #[serde(borrow, rename = "Node")]
    node: OfNode<'a>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OfNode<'a> {
    Named(#[serde(borrow)] Cow<'a, str>),
    Whole {
        #[serde(borrow, rename = "Node")]
        name: Cow<'a, str>,
    },
}

fn sorted(list: &[u8], node: &str) -> Option<Vec<u8>> {
    let is_near = |entry: &&[u8]| match serde_json::from_slice(entry) {
        Ok(Entry {
            node: OfNode::Named(name) | OfNode::Whole { name },
        }) => name.eq_ignore_ascii_case(node),
        Err(_) => false,
    };
    let (mut first, others): (Vec<_>, Vec<_>) = entries(list)?.into_iter().partition(is_near);
    first.extend(others);
    Some([&b"["[..], &first.join(&b','), &b"]"[..]].concat())
}

/// The entries of a list, as they are written; `None` if it is none. `list` must be compact and valid.
fn entries(list: &[u8]) -> Option<Vec<&[u8]>> {
    let inner = list.strip_prefix(b"[")?.strip_suffix(b"]")?;
    let mut depth = 0_usize;
    let (mut in_string, mut escaped) = (false, false);
    let mut between = |byte: &u8| {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = in_string,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => depth += 1,
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
        *byte == b',' && depth == 0 && !in_string
    };
    // Nothing is one empty part, too, and is put together again as nothing.
    Some(inner.split(|byte| between(byte)).collect())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn sorted_text(list: &str, node: &str) -> Option<String> {
        sorted(list.as_bytes(), node).map(|sorted| String::from_utf8(sorted).expect("text"))
    }

    #[test]
    fn a_nodes_entries_come_first_and_keep_their_order() {
        let odd = r#"[{"x":"],[\\","Node":"b"},{"y":[{"z":"\\\"}"}],"Node":"a"}]"#;
        let expected = r#"[{"y":[{"z":"\\\"}"}],"Node":"a"},{"x":"],[\\","Node":"b"}]"#;
        assert_eq!(sorted_text(odd, "a").as_deref(), Some(expected));
        let list = r#"[{"Node":"b","x":1},{"Node":"a \"\u00e4\"","x":2},{"Node":"b","x":3},{"Node":"c"}]"#;
        let expected =
            r#"[{"Node":"a \"\u00e4\"","x":2},{"Node":"b","x":1},{"Node":"b","x":3},{"Node":"c"}]"#;
        assert_eq!(sorted_text(list, "a \"ä\"").as_deref(), Some(expected));
        assert_eq!(sorted_text(list, "nobody").as_deref(), Some(list));
        assert_eq!(sorted_text("[]", "a").as_deref(), Some("[]"));
        let list = r#"[{"Node":{"ID":"","Node":"b"}},{"Node":{"ID":"","Node":"a"},"Service":{"Node":"b"}}]"#;
        let expected =
            r#"[{"Node":{"ID":"","Node":"a"},"Service":{"Node":"b"}},{"Node":{"ID":"","Node":"b"}}]"#;
        assert_eq!(sorted_text(list, "A").as_deref(), Some(expected));
    }

    #[test]
    fn what_is_no_list_stays_as_it_is() {
        assert_eq!(sorted_text(r#"{"Node":"a"}"#, "a"), None);
        assert_eq!(sorted_text("rpc error", "a"), None);
        assert_eq!(
            sorted_text(r#"["x",{"y":1}]"#, "a").as_deref(),
            Some(r#"["x",{"y":1}]"#)
        );
    }

    #[test]
    fn only_an_agents_own_node_is_near_to_who_asks_through_it() {
        let own = NodeName::parse("this").expect("a name");
        let mut headers = HeaderMap::new();
        let near = |uri: &str, headers: &HeaderMap| wanted(&uri.parse().expect("a URI"), headers);
        assert_eq!(near("/v1/catalog/nodes?near=_agent", &headers), None);
        assert_eq!(node("_agent", &headers, &own), "this");
        headers.insert(
            FROM_AN_AGENT,
            HeaderValue::from_bytes("höst".as_bytes()).expect("a value"),
        );
        for (uri, expected) in [
            ("/v1/catalog/nodes?near=_agent", Some("höst")),
            ("/v1/health/service/web?passing&near=h%C3%B6st", Some("höst")),
            ("/v1/health/service/web?near=other", None),
            ("/v1/health/service/web?near=", None),
            ("/v1/kv/near=?near=_agent", None),
        ] {
            assert_eq!(near(uri, &headers).as_deref(), expected, "{uri}");
        }
        assert_eq!(node("_agent", &headers, &own), "höst");
        assert_eq!(node("other", &headers, &own), "other");
        headers.insert(FROM_AN_AGENT, HeaderValue::from_static(AN_AGENT));
        assert_eq!(near("/v1/catalog/nodes?near=_agent", &headers), None);
    }
}
