//! Whom to ask after a redirect, and how: as Go's HTTP client does it, which Consul's checks are made with.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method, StatusCode, Uri, header};

use super::web::Asked;

/// What is not told to another host than the one it was meant for.
const SECRETS: [HeaderName; 4] = [
    header::AUTHORIZATION,
    header::COOKIE,
    header::PROXY_AUTHORIZATION,
    header::WWW_AUTHENTICATE,
];
/// What describes a body, and goes with it.
const OF_BODY: [HeaderName; 4] = [
    header::CONTENT_TYPE,
    header::CONTENT_LENGTH,
    header::CONTENT_ENCODING,
    header::CONTENT_LANGUAGE,
];

/// What is to be asked after this answer; `None` if it is no redirect, or says nothing of where to.
///
/// # Errors
/// Where it leads to is no URL.
pub(super) fn redirected(
    asked: &Asked,
    status: StatusCode,
    headers: &HeaderMap,
) -> Result<Option<Asked>, String> {
    let (method, with_body) = match status.as_u16() {
        301..=303 if asked.method == Method::HEAD => (Method::HEAD, false),
        301..=303 => (Method::GET, false),
        307 | 308 => (asked.method.clone(), true),
        _ => return Ok(None),
    };
    let Some(location) = headers.get(header::LOCATION).filter(|value| !value.is_empty()) else {
        return Ok(None);
    };
    let location = String::from_utf8_lossy(location.as_bytes());
    let url = join(&asked.url, &location)
        .map_err(|error| format!("the redirect to {location:?} can't be followed: {error}"))?;
    let mut headers = asked.headers.clone();
    if url.authority() != asked.url.authority() {
        headers.remove(header::HOST);
    }
    if !is_told_to(
        asked.url.host().unwrap_or_default(),
        url.host().unwrap_or_default(),
    ) {
        SECRETS.iter().for_each(|name| drop(headers.remove(name)));
    }
    let body = match with_body {
        true => asked.body.clone(),
        false => {
            OF_BODY.iter().for_each(|name| drop(headers.remove(name)));
            Bytes::new()
        }
    };
    Ok(Some(Asked {
        url,
        method,
        headers,
        body,
    }))
}

/// Whether a host is told what was meant for another: if it is the same, or beneath it.
fn is_told_to(meant_for: &str, host: &str) -> bool {
    let (meant_for, host) = (meant_for.to_ascii_lowercase(), host.to_ascii_lowercase());
    let beneath = host.strip_suffix(&meant_for);
    beneath.is_some_and(|names| names.is_empty() || names.ends_with('.'))
}

/// A URL, or a part of one seen from `base` (RFC 3986, section 5.2).
fn join(base: &Uri, reference: &str) -> Result<Uri, String> {
    let reference = reference.split('#').next().unwrap_or_default();
    let scheme = base.scheme_str().unwrap_or("http");
    let whole = if has_scheme(reference) {
        reference.to_owned()
    } else if reference.starts_with("//") {
        format!("{scheme}:{reference}")
    } else {
        let authority = base.authority().map_or("", |authority| authority.as_str());
        let (path, query) = match reference.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (reference, None),
        };
        let (path, query) = match path {
            "" => (base.path().to_owned(), query.or(base.query())),
            path if path.starts_with('/') => (without_dots(path), query),
            path => {
                let folder = base.path().rsplit_once('/').map_or("", |(folder, _)| folder);
                (without_dots(&format!("{folder}/{path}")), query)
            }
        };
        let query = query.map(|query| format!("?{query}")).unwrap_or_default();
        format!("{scheme}://{authority}{path}{query}")
    };
    whole
        .parse()
        .map_err(|error: http::uri::InvalidUri| error.to_string())
}

fn has_scheme(reference: &str) -> bool {
    let is_scheme = |text: &str| {
        text.starts_with(|c: char| c.is_ascii_alphabetic())
            && text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
    };
    let before = reference.split(['/', '?']).next().unwrap_or_default();
    before
        .split_once(':')
        .is_some_and(|(scheme, _)| is_scheme(scheme))
}

/// A path without `.` and `..`.
fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    for segment in path.split('/').skip(1) {
        match segment {
            "." => {}
            ".." => drop(kept.pop()),
            segment => kept.push(segment),
        }
    }
    let is_folder = path.ends_with("/.") || path.ends_with("/..");
    let end = if is_folder && !kept.is_empty() { "/" } else { "" };
    format!("/{}{end}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn asked(method: &str, url: &str) -> Asked {
        let headers = [
            ("Authorization", "secret"),
            ("Content-Type", "text/plain"),
            ("Host", "web"),
        ];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Asked::new(url, method, &headers, "body").unwrap()
    }

    fn led(from: &Asked, status: u16, location: &str) -> Asked {
        let mut headers = HeaderMap::new();
        headers.insert(header::LOCATION, HeaderValue::from_str(location).unwrap());
        redirected(from, StatusCode::from_u16(status).unwrap(), &headers)
            .unwrap()
            .unwrap()
    }

    #[test]
    fn a_part_of_a_url_is_seen_from_where_it_was_found() {
        let base: Uri = "http://h:1/a/b/c?q=1".parse().unwrap();
        for (reference, expected) in [
            ("https://other/x?y#z", "https://other/x?y"),
            ("//other:2/x", "http://other:2/x"),
            ("/x/../y/./z?k=v", "http://h:1/y/z?k=v"),
            ("d", "http://h:1/a/b/d"),
            ("./d/", "http://h:1/a/b/d/"),
            ("../d?e", "http://h:1/a/d?e"),
            ("../../../d", "http://h:1/d"),
            ("..", "http://h:1/a/"),
            ("?k=v", "http://h:1/a/b/c?k=v"),
            ("#part", "http://h:1/a/b/c?q=1"),
            ("d/e:f", "http://h:1/a/b/d/e:f"),
        ] {
            assert_eq!(
                join(&base, reference).unwrap().to_string(),
                expected,
                "{reference}"
            );
        }
        assert!(join(&base, "http://a b/").is_err());
    }

    #[test]
    fn a_method_is_kept_or_becomes_get_as_the_status_says() {
        for (status, method, expected) in [
            (301, "POST", "GET"),
            (302, "PUT", "GET"),
            (303, "HEAD", "HEAD"),
            (303, "GET", "GET"),
            (307, "POST", "POST"),
            (308, "PUT", "PUT"),
        ] {
            let next = led(&asked(method, "http://h/"), status, "/x");
            assert_eq!(next.method, expected, "{status} {method}");
            let with_body = status >= 307;
            assert_eq!(next.body.is_empty(), !with_body);
            assert_eq!(next.headers.contains_key(header::CONTENT_TYPE), with_body);
        }
    }

    #[test]
    fn another_host_learns_no_secret_and_has_a_name_of_its_own() {
        let has = |location, name: HeaderName| {
            led(&asked("GET", "http://h:1/"), 302, location)
                .headers
                .contains_key(name)
        };
        assert!(has("/x", header::AUTHORIZATION) && has("/x", header::HOST));
        assert!(has("http://h:2/", header::AUTHORIZATION) && !has("http://h:2/", header::HOST));
        assert!(has("http://sub.h/", header::AUTHORIZATION));
        assert!(!has("http://evilh/", header::AUTHORIZATION));
        assert!(!has("http://other/", header::AUTHORIZATION));
    }

    #[test]
    fn what_leads_nowhere_is_the_answer() {
        let from = asked("GET", "http://h/");
        for status in [200, 300, 304, 305, 404] {
            let mut headers = HeaderMap::new();
            headers.insert(header::LOCATION, HeaderValue::from_static("/x"));
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(redirected(&from, status, &headers), Ok(None));
        }
        let nowhere = redirected(&from, StatusCode::FOUND, &HeaderMap::new());
        assert_eq!(nowhere, Ok(None));
        let mut headers = HeaderMap::new();
        headers.insert(header::LOCATION, HeaderValue::from_static("http://[/"));
        let error = redirected(&from, StatusCode::FOUND, &headers).unwrap_err();
        assert!(error.contains("http://[/"), "{error}");
    }
}
