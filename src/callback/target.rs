//! Reading a callback's URL: what to connect to, and the user info that nobody else may see.

use std::net::IpAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use http::uri::{Authority, Scheme, Uri};
use percent_encoding::percent_decode_str;

/// Where to POST.
#[derive(Debug, Clone)]
pub struct Target {
    /// The URL without user info.
    pub uri: Uri,
    /// The host: a name, or an address without brackets.
    pub host: String,
    /// The user info, as basic authentication; marked sensitive, so that it shows nowhere.
    pub authorization: Option<HeaderValue>,
}

impl Target {
    /// Reads a URL. The error never repeats it, since it may hold a password.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(url: &str) -> Result<Self, String> {
        let uri: Uri = url
            .parse()
            .map_err(|error| format!("completionCallbackURL can't be read: {error}"))?;
        if uri.scheme() != Some(&Scheme::HTTP) && uri.scheme() != Some(&Scheme::HTTPS) {
            return Err("completionCallbackURL must begin with http:// or https://".into());
        }
        let mut parts = uri.into_parts();
        let authority = parts.authority.take();
        let authority = authority.filter(|authority| !authority.host().is_empty());
        let authority = authority.ok_or("completionCallbackURL names no host")?;
        let (user_info, rest) = match authority.as_str().rsplit_once('@') {
            Some((user_info, rest)) => (Some(user_info), rest),
            None => (None, authority.as_str()),
        };
        // Authority::port is None for a port that is no number, too.
        let port = rest.rsplit_once(':').map(|(_, port)| port);
        if port.is_some_and(|port| !port.ends_with(']')) && authority.port_u16().is_none() {
            return Err(
                "completionCallbackURL must have a port between 1 and 65535, or none".into(),
            );
        }
        let wrong = |_| "completionCallbackURL can't be read".to_owned();
        parts.authority = Some(Authority::try_from(rest).map_err(wrong)?);
        Ok(Target {
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            authorization: user_info.map(basic).transpose()?,
            uri: Uri::from_parts(parts).map_err(|error| wrong_parts(&error))?,
        })
    }

    /// Whether it is sent over TLS.
    pub fn is_https(&self) -> bool {
        self.uri.scheme() == Some(&Scheme::HTTPS)
    }

    /// The host as an address, if it is written as one.
    pub fn address(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

/// Who is told by a URL: host and port, in one spelling. Empty for a URL that nobody can be told by.
pub fn receiver(url: &str) -> String {
    let Ok(target) = Target::parse(url) else {
        return String::new();
    };
    let usual = if target.is_https() { 443 } else { 80 };
    let port = target.uri.port_u16().unwrap_or(usual);
    let host = target.host.trim_end_matches('.').to_ascii_lowercase();
    format!("{host}:{port}")
}

fn wrong_parts(error: &http::uri::InvalidUriParts) -> String {
    format!("completionCallbackURL can't be read: {error}")
}

/// `user:password`, each percent-encoded, as the header Authorization.
fn basic(user_info: &str) -> Result<HeaderValue, String> {
    let (user, password) = user_info.split_once(':').unwrap_or((user_info, ""));
    let mut plain: Vec<u8> = percent_decode_str(user).collect();
    plain.push(b':');
    plain.extend(percent_decode_str(password));
    let mut value = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(plain)))
        .map_err(|_| "the user info of completionCallbackURL can't be sent".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart() {
        for (url, host, uri) in [
            (
                "http://cc.example.com/done",
                "cc.example.com",
                "http://cc.example.com/done",
            ),
            (
                "HTTPS://cc.example.com:8443",
                "cc.example.com",
                "https://cc.example.com:8443/",
            ),
            ("http://[::1]:80/a?b=c#d", "::1", "http://[::1]:80/a?b=c"),
            ("http://10.1.2.3", "10.1.2.3", "http://10.1.2.3/"),
            (
                "https://u:p@h.example/x",
                "h.example",
                "https://h.example/x",
            ),
        ] {
            let target = Target::parse(url).expect(url);
            assert_eq!(
                (target.host.as_str(), target.uri.to_string().as_str()),
                (host, uri)
            );
        }
    }

    #[test]
    fn user_info_becomes_basic_authentication_and_shows_nowhere() {
        let target = Target::parse("https://cc:s%40cret@h.example/x").expect("a URL");
        let header = target.authorization.clone().expect("user info");
        assert_eq!(
            header.to_str().ok(),
            Some("Basic Y2M6c0BjcmV0"),
            "cc:s@cret"
        );
        let shown = format!("{target:?}");
        for secret in ["s%40cret", "s@cret", "Y2M6c0BjcmV0"] {
            assert!(!shown.contains(secret), "{shown}");
        }
        let header = Target::parse("http://token@h.example")
            .expect("a URL")
            .authorization;
        assert_eq!(
            header.expect("a user").to_str().ok(),
            Some("Basic dG9rZW46")
        );
    }

    #[test]
    fn one_receiver_has_one_spelling() {
        for (url, expected) in [
            ("http://cc.example.com/a", "cc.example.com:80"),
            ("http://u:p@CC.example.com.:80/b", "cc.example.com:80"),
            ("https://cc.example.com/", "cc.example.com:443"),
            ("https://cc.example.com:8443/", "cc.example.com:8443"),
            ("http://[::1]:9/", "::1:9"),
            ("http://u:p@", ""),
        ] {
            assert_eq!(receiver(url), expected, "{url}");
        }
    }

    #[test]
    fn a_bad_url_is_told_without_repeating_it() {
        for url in [
            "ftp://cc:s3cret@h.example",
            "http://",
            "http:///path",
            "http://cc:s3cret@",
            "http://cc:s3cret@h.example:99999/",
            "http://cc:s3cret@h.example:x/",
            "http://cc:s3cret@h example/",
            "/path",
            "",
        ] {
            let problem = Target::parse(url).map(|target| target.uri).expect_err(url);
            assert!(problem.contains("completionCallbackURL"), "{problem}");
            assert!(!problem.contains("s3cret"), "{problem}");
        }
    }
}
