//! Finds the servers' binaries: `KUBEBUILDER_ASSETS`, then `PATH`, then what `make setup` built.

use crate::{Error, Result};
use std::{
    env,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// The path of the program `name`: the first executable of that name in the directory `KUBEBUILDER_ASSETS`, the directories of
/// `PATH`, and the directory of `make setup` (`.tools/bin` of this checkout, or `DIEGO_TOOLS_DIR` if set).
///
/// `kubectl` is looked for in the directory of `make setup` before `PATH`: it must fit the server, and the `kubectl` that a
/// machine happens to have is often years older.
///
/// # Errors
/// [`Error::MissingBinary`] when it is in none of them.
pub fn binary(name: &str) -> Result<PathBuf> {
    let tools = tools_dir();
    let assets = env::var_os("KUBEBUILDER_ASSETS")
        .filter(|dir| !dir.is_empty())
        .map(PathBuf::from);
    let path: Vec<PathBuf> = env::var_os("PATH")
        .map(|path| env::split_paths(&path).collect())
        .unwrap_or_default();
    find(name, assets, path, tools.clone()).ok_or_else(|| Error::MissingBinary {
        name: name.to_owned(),
        tools,
    })
}

/// The search itself, apart from the environment.
fn find(
    name: &str,
    assets: Option<PathBuf>,
    path: Vec<PathBuf>,
    tools: PathBuf,
) -> Option<PathBuf> {
    let mut dirs: Vec<PathBuf> = assets.into_iter().collect();
    if name == "kubectl" {
        dirs.push(tools);
        dirs.extend(path);
    } else {
        dirs.extend(path);
        dirs.push(tools);
    }
    dirs.into_iter()
        .map(|dir| dir.join(name))
        .find(|file| is_executable(file))
}

/// The archive of one of the images that `hack/setup.sh e2e` builds: `pause`, `test-app` or `etcd`.
///
/// # Errors
/// [`Error::MissingImage`] when it is not there.
pub fn image(name: &str) -> Result<PathBuf> {
    let file = tools_dir().join("images").join(format!("{name}.oci.tar"));
    if file.is_file() {
        Ok(file)
    } else {
        Err(Error::MissingImage(file))
    }
}

/// Where `make setup` puts what it builds.
pub(crate) fn tools_dir() -> PathBuf {
    match env::var_os("DIEGO_TOOLS_DIR").filter(|dir| !dir.is_empty()) {
        Some(dir) => PathBuf::from(dir),
        // This crate is tests/cluster of the checkout.
        None => {
            let here = Path::new(env!("CARGO_MANIFEST_DIR"));
            here.ancestors()
                .nth(2)
                .unwrap_or(here)
                .join(".tools")
                .join("bin")
        }
    }
}

fn is_executable(file: &Path) -> bool {
    file.metadata()
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn program(dir: &Path, sub: &str, name: &str, mode: u32) -> PathBuf {
        let dir = dir.join(sub);
        fs::create_dir_all(&dir).unwrap();
        let file = dir.join(name);
        fs::write(&file, "").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        file
    }

    #[test]
    fn assets_come_first_then_path_then_tools() {
        let tmp = tempfile::tempdir().unwrap();
        let (assets, path, tools) = (
            tmp.path().join("assets"),
            tmp.path().join("path"),
            tmp.path().join("tools"),
        );
        let search = |name| {
            find(
                name,
                Some(assets.clone()),
                vec![path.clone()],
                tools.clone(),
            )
        };
        assert_eq!(search("etcd"), None);
        let built = program(tmp.path(), "tools", "etcd", 0o755);
        assert_eq!(search("etcd"), Some(built));
        let installed = program(tmp.path(), "path", "etcd", 0o755);
        assert_eq!(search("etcd"), Some(installed));
        let given = program(tmp.path(), "assets", "etcd", 0o755);
        assert_eq!(search("etcd"), Some(given));
    }

    #[test]
    fn kubectl_of_make_setup_wins_over_path() {
        let tmp = tempfile::tempdir().unwrap();
        program(tmp.path(), "path", "kubectl", 0o755);
        let built = program(tmp.path(), "tools", "kubectl", 0o755);
        assert_eq!(
            find(
                "kubectl",
                None,
                vec![tmp.path().join("path")],
                tmp.path().join("tools")
            ),
            Some(built)
        );
    }

    #[test]
    fn what_cannot_be_executed_is_passed_over() {
        let tmp = tempfile::tempdir().unwrap();
        program(tmp.path(), "path", "etcd", 0o644);
        let built = program(tmp.path(), "tools", "etcd", 0o755);
        assert_eq!(
            find(
                "etcd",
                None,
                vec![tmp.path().join("path")],
                tmp.path().join("tools")
            ),
            Some(built)
        );
    }

    #[test]
    fn a_missing_program_names_the_remedy() {
        let error = binary("no-such-server").unwrap_err();
        assert!(error.to_string().contains("run `make setup`"), "{error}");
        let error = image("no-such-image").unwrap_err().to_string();
        assert!(error.contains("run `hack/setup.sh e2e`"), "{error}");
    }
}
