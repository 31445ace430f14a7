//! The flags of `diego fence`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use crate::fence::FenceConfig;
use crate::telemetry::LogFormat;

/// Flags of `diego fence`.
#[derive(Debug, Clone, Args)]
pub struct FenceArgs {
    /// File with the deadline, the one that the rep has as --fence-deadline-file
    #[arg(
        long,
        env = "DIEGO_DEADLINE_FILE",
        value_name = "FILE",
        help_heading = "Fence"
    )]
    pub deadline_file: PathBuf,
    /// File that tells the rep that this program is at work, the one that the rep has as --fence-ready-file
    #[arg(
        long,
        env = "DIEGO_READY_FILE",
        value_name = "FILE",
        help_heading = "Fence"
    )]
    pub ready_file: Option<PathBuf>,
    /// Socket of the node's container runtime (CRI v1)
    #[arg(
        long,
        env = "DIEGO_CRI_SOCKET",
        value_name = "unix://PATH",
        default_value = "unix:///run/containerd/containerd.sock",
        help_heading = "Fence"
    )]
    pub cri_socket: String,
    /// Address and port of /healthz, /livez and /readyz; port 0 takes a free one. It is ready while the container runtime
    /// answers
    #[arg(
        long,
        env = "DIEGO_HEALTH_ADDR",
        value_name = "IP:PORT",
        default_value = "0.0.0.0:8082",
        help_heading = "Serving"
    )]
    pub health_addr: SocketAddr,
    /// How log lines look; RUST_LOG chooses which there are
    #[arg(
        long,
        env = "DIEGO_LOG_FORMAT",
        value_enum,
        default_value = "text",
        help_heading = "Serving"
    )]
    pub log_format: LogFormat,
}

impl FenceArgs {
    /// What the fencer is told.
    pub fn config(&self) -> FenceConfig {
        FenceConfig {
            deadline_file: self.deadline_file.clone(),
            ready_file: self.ready_file.clone(),
            cri_socket: self.cri_socket.clone(),
        }
    }
}
