//! Flags about how `/metrics` is served, and to whom.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::http::TlsFiles;

/// How `/metrics` is served.
#[derive(Debug, Clone, Args)]
pub struct MetricsArgs {
    /// PEM file with the certificate of /metrics, which is then served by TLS alone; needs --metrics-tls-key.
    /// A renewed file is taken on within seconds
    #[arg(
        long,
        env = "DIEGO_METRICS_TLS_CERT",
        value_name = "FILE",
        requires = "metrics_tls_key",
        help_heading = "Serving"
    )]
    pub metrics_tls_cert: Option<PathBuf>,
    /// PEM file with the key of that certificate; needs --metrics-tls-cert
    #[arg(
        long,
        env = "DIEGO_METRICS_TLS_KEY",
        value_name = "FILE",
        requires = "metrics_tls_cert",
        help_heading = "Serving"
    )]
    pub metrics_tls_key: Option<PathBuf>,
    /// Who may read /metrics
    #[arg(
        long,
        env = "DIEGO_METRICS_AUTH",
        value_enum,
        default_value = "none",
        help_heading = "Serving"
    )]
    pub metrics_auth: MetricsAuth,
    /// Whom a scraper's token must be meant for, with --metrics-auth token. One that is meant for nobody else is of no use
    /// anywhere else. Default: the API server's own audience
    #[arg(
        long,
        env = "DIEGO_METRICS_TOKEN_AUDIENCE",
        value_name = "NAME",
        value_delimiter = ',',
        help_heading = "Serving"
    )]
    pub metrics_token_audience: Vec<String>,
}

/// Who may read `/metrics`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum MetricsAuth {
    /// Everybody who reaches it
    None,
    /// Users who may get the nonResourceURL /metrics, by their bearer tokens; the API server is asked (TokenReview,
    /// SubjectAccessReview)
    Token,
}

impl MetricsArgs {
    /// The certificate's files, if there are any.
    pub fn tls(&self) -> Option<TlsFiles> {
        Some(TlsFiles {
            cert: self.metrics_tls_cert.clone()?,
            key: self.metrics_tls_key.clone()?,
        })
    }

    /// Whether the API server is asked who may read.
    pub fn asks(&self) -> bool {
        self.metrics_auth == MetricsAuth::Token
    }

    /// Checks what one flag needs of another.
    ///
    /// # Errors
    /// What is missing.
    pub fn validate(&self) -> Result<(), String> {
        if self.asks() && self.tls().is_none() {
            return Err(
                "--metrics-auth token: tokens would be sent in plain text; set --metrics-tls-cert and --metrics-tls-key too"
                    .into(),
            );
        }
        let audiences = &self.metrics_token_audience;
        if !audiences.is_empty() && !self.asks() {
            return Err(format!(
                "--metrics-token-audience {}: no token is asked for; set --metrics-auth token too",
                audiences.join(",")
            ));
        }
        if audiences.iter().any(String::is_empty) {
            return Err(format!(
                "--metrics-token-audience {}: a name is empty; give the audience of the scraper's token, such as diego-metrics",
                audiences.join(",")
            ));
        }
        Ok(())
    }
}
