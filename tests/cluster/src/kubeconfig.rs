//! Who may log in, and the files that say so: kubeconfigs for clients, the token file for the API server.

use base64::{Engine, prelude::BASE64_STANDARD};

/// A user with the token that proves it.
pub(crate) struct Identity {
    pub(crate) name: String,
    pub(crate) groups: Vec<String>,
    pub(crate) token: String,
}

impl Identity {
    /// This user's kubeconfig for the server, with the authority's certificate inside: the file works wherever it is copied.
    pub(crate) fn kubeconfig(&self, server: &str, ca_pem: &str) -> String {
        let ca = BASE64_STANDARD.encode(ca_pem);
        // A JSON string is a YAML string, whatever it holds.
        let user = serde_json::Value::from(self.name.as_str());
        let token = &self.token;
        format!(
            "\
apiVersion: v1
kind: Config
current-context: local
clusters:
- name: local
  cluster:
    server: {server}
    certificate-authority-data: {ca}
users:
- name: {user}
  user:
    token: {token}
contexts:
- name: local
  context:
    cluster: local
    user: {user}
    namespace: default
"
        )
    }

    /// This user's line of the API server's token file: token, name, uid and groups as CSV.
    fn token_line(&self) -> String {
        let (name, groups) = (csv(&self.name), csv(&self.groups.join(",")));
        format!("{},{name},{name},{groups}\n", self.token)
    }
}

/// The API server's token file.
pub(crate) fn token_file(identities: &[Identity]) -> String {
    identities.iter().map(Identity::token_line).collect()
}

fn csv(field: &str) -> String {
    format!("\"{}\"", field.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_names_are_quoted() {
        let odd = Identity {
            name: "a \"b\": c".to_owned(),
            groups: vec!["x".to_owned(), "y".to_owned()],
            token: "t".to_owned(),
        };
        assert_eq!(
            token_file(&[odd]),
            "t,\"a \"\"b\"\": c\",\"a \"\"b\"\": c\",\"x,y\"\n"
        );
    }

    #[test]
    fn the_kubeconfig_names_server_user_and_token() {
        let one = Identity {
            name: "system:node:a".to_owned(),
            groups: vec![],
            token: "secret".to_owned(),
        };
        let text = one.kubeconfig("https://127.0.0.1:1", "PEM");
        for part in [
            "server: https://127.0.0.1:1\n",
            "- name: \"system:node:a\"\n",
            "token: secret\n",
            "-data: UEVN\n",
        ] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
    }
}
