//! Certificates that vouch for themselves, made by `openssl`.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::Failure;

/// Certificate and key for 127.0.0.1: `<name>.crt` and `<name>.key`.
pub fn self_signed(dir: &Path, name: &str) -> Result<(PathBuf, PathBuf), Failure> {
    let files = ["crt", "key"].map(|ending| dir.join(format!("{name}.{ending}")));
    let output = Command::new("openssl")
        .args(["req", "-x509", "-days", "2", "-subj", "/CN=diego"])
        .args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"])
        .args(["-nodes", "-addext", "subjectAltName=IP:127.0.0.1"])
        .arg("-keyout")
        .arg(&files[1])
        .arg("-out")
        .arg(&files[0])
        .output()?;
    if !output.status.success() {
        return Err(format!("openssl: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    let [cert, key] = files;
    Ok((cert, key))
}
