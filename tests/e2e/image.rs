//! The image is the same by buildah, podman and docker: one program, no shell, not root, small.

use crate::{site, support::Failure};
use local_cluster::ServerProcess;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    env,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

const NAME: &str = "image-test:dev";
const VERSION: &str = env!("CARGO_PKG_VERSION");
const REVISION: &str = "of-the-test";
/// Of all files in the image together.
const LIMIT: u64 = 25_000_000;
/// podman and docker leave things in /run: here they have one that goes with them.
const OWN_RUN: &str = r#"mount -t tmpfs run /run && exec "$@""#;
const DAEMON_WITHIN: Duration = Duration::from_secs(60);

/// What an image says and holds.
#[derive(Debug, PartialEq)]
struct Image {
    user: String,
    command: Value,
    ports: Value,
    labels: BTreeMap<String, String>,
    /// Files with their owners, modes and sizes; no directories.
    files: BTreeMap<String, String>,
    bytes: u64,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_builders_make_the_same_image() -> Result<(), Failure> {
    let _turn = site::turn().await;
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/image");
    let profile = fs::read_to_string(built.join("profile")).map_err(|_| {
        let built = built.display();
        format!("there is no context in {built}: `BUILDER=buildah hack/image.sh` makes it, and so does `make e2e`")
    })?;
    let scratch = tempfile::tempdir()?;
    let dir = scratch.path();
    for builder in ["buildah", "podman", "docker"] {
        found(builder)?;
    }
    // Others may build it anew meanwhile.
    run(Command::new("cp")
        .arg("-r")
        .arg(built.join("context"))
        .arg(dir))?;

    let by_buildah = buildah(dir)?;
    let labels: BTreeMap<&str, &str> = by_buildah
        .labels
        .iter()
        .filter_map(|(name, value)| Some((name.rsplit_once("image.")?.1, value.as_str())))
        .collect();
    assert_eq!(labels["title"], "diego-operator");
    assert_eq!(labels["licenses"], env!("CARGO_PKG_LICENSE"));
    assert_eq!((labels["version"], labels["revision"]), (VERSION, REVISION));
    assert_eq!(by_buildah.user, "65532:65532");
    assert_eq!(by_buildah.command, serde_json::json!(["/diego"]));
    let files: Vec<_> = by_buildah.files.keys().collect();
    assert_eq!(files, ["diego", "etc/ssl/certs/ca-certificates.crt"]);
    // Of other profiles it is large, for trials.
    if profile.trim() == "dist" {
        assert!(by_buildah.bytes < LIMIT, "{} bytes", by_buildah.bytes);
    }

    assert_eq!(podman(dir)?, by_buildah, "podman");
    let daemon = Daemon::start(dir).await?;
    for build_kit in ["0", "1"] {
        let by_docker = daemon.build(dir, build_kit)?;
        assert_eq!(by_docker, by_buildah, "docker, BuildKit: {build_kit}");
    }
    Ok(())
}

fn buildah(dir: &Path) -> Result<Image, Failure> {
    let archive = dir.join("buildah.tar");
    run(pack("buildah", dir).arg(&archive))?;
    Image::read(&archive, dir)
}

fn podman(dir: &Path) -> Result<Image, Failure> {
    // A store of the test's own; the user's is for the user's images.
    let settings = dir.join("storage.conf");
    let (store, run_root) = (dir.join("podman"), dir.join("podman-run"));
    let text =
        format!("[storage]\ndriver = \"vfs\"\ngraphroot = {store:?}\nrunroot = {run_root:?}\n");
    fs::write(&settings, text)?;
    let archive = dir.join("podman.tar");
    let mut save = Command::new("podman");
    save.args(["save", "--output"]).arg(&archive).arg(NAME);
    for command in [pack("podman", dir), save] {
        let mut apart = Command::new("unshare");
        apart.args(["--mount", "sh", "-c", OWN_RUN, "sh"]);
        apart.arg(command.get_program()).args(command.get_args());
        run(apart.env("CONTAINERS_STORAGE_CONF", &settings))?;
    }
    Image::read(&archive, dir)
}

/// A docker daemon in namespaces of its own, with which its processes and mounts end.
struct Daemon {
    _process: ServerProcess,
    socket: String,
}

impl Daemon {
    async fn start(dir: &Path) -> Result<Self, Failure> {
        let dockerd = found("dockerd")?.display().to_string();
        let at = |name: &str| dir.join(name).display().to_string();
        let socket = format!("unix://{}", at("docker.sock"));
        let unshare = "--mount --pid --fork --kill-child --mount-proc sh -c";
        let mut args: Vec<String> = unshare.split(' ').map(str::to_owned).collect();
        args.extend([
            OWN_RUN.to_owned(),
            "sh".to_owned(),
            dockerd,
            format!("--host={socket}"),
            format!("--data-root={}", at("docker")),
            format!("--exec-root={}", at("docker-run")),
            format!("--pidfile={}", at("docker.pid")),
            "--storage-driver=vfs".to_owned(),
            "--bridge=none".to_owned(),
            "--iptables=false".to_owned(),
            "--ip6tables=false".to_owned(),
        ]);
        let log = dir.join("dockerd.log");
        let process = ServerProcess::start("dockerd", &found("unshare")?, &args, &[], &log)?;
        let daemon = Self {
            _process: process,
            socket,
        };
        let is_up = || async {
            let version = daemon
                .client(Command::new("docker"))
                .arg("version")
                .output();
            version.is_ok_and(|said| said.status.success())
        };
        daemon._process.ready(DAEMON_WITHIN, is_up).await?;
        Ok(daemon)
    }

    fn client(&self, mut command: Command) -> Command {
        // The daemon's own client first: another one may lack BuildKit.
        let path = env::var_os("PATH").unwrap_or_default();
        let path = [OsStr::new("/usr/bin"), &path].map(OsStr::to_string_lossy);
        command
            .env("DOCKER_HOST", &self.socket)
            .env("PATH", path.join(":"));
        command
    }

    fn build(&self, dir: &Path, build_kit: &str) -> Result<Image, Failure> {
        run(self
            .client(pack("docker", dir))
            .env("DOCKER_BUILDKIT", build_kit))?;
        let archive = dir.join(format!("docker-{build_kit}.tar"));
        let mut save = self.client(Command::new("docker"));
        run(save.args(["save", "--output"]).arg(&archive).arg(NAME))?;
        Image::read(&archive, dir)
    }
}

/// The script that every image is built by.
fn pack(builder: &str, dir: &Path) -> Command {
    let mut pack = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("hack/pack.sh"));
    pack.arg(builder).arg(dir.join("context"));
    pack.args([NAME, VERSION, REVISION]);
    pack
}

impl Image {
    /// From an oci-archive, or from what `docker save` and `podman save` write.
    fn read(archive: &Path, dir: &Path) -> Result<Self, Failure> {
        let unpacked = dir
            .join("unpacked")
            .join(archive.file_stem().ok_or("no name")?);
        fs::create_dir_all(&unpacked)?;
        run(Command::new("tar")
            .arg("-xf")
            .arg(archive)
            .arg("-C")
            .arg(&unpacked))?;
        let json = |path: &Path| -> Result<Value, Failure> {
            Ok(serde_json::from_slice(&fs::read(unpacked.join(path))?)?)
        };
        let file = |name: &Value| unpacked.join(name.as_str().unwrap_or_default());
        let (config, layers) = match json(Path::new("manifest.json")) {
            Ok(manifest) => {
                let layers = manifest[0]["Layers"].as_array().ok_or("no layers")?;
                let layers: Vec<PathBuf> = layers.iter().map(file).collect();
                (json(&file(&manifest[0]["Config"]))?, layers)
            }
            Err(_) => {
                let blob = |of: &Value| {
                    let digest = of["digest"].as_str().unwrap_or_default();
                    unpacked.join("blobs").join(digest.replace(':', "/"))
                };
                let manifest = json(&blob(&json(Path::new("index.json"))?["manifests"][0]))?;
                let layers = manifest["layers"].as_array().ok_or("no layers")?;
                (
                    json(&blob(&manifest["config"]))?,
                    layers.iter().map(blob).collect(),
                )
            }
        };
        let config = &config["config"];
        let mut labels: BTreeMap<String, String> =
            serde_json::from_value(config["Labels"].clone())?;
        // Of buildah, which podman is made of, about itself.
        labels.remove("io.buildah.version");
        let mut image = Self {
            user: config["User"].as_str().unwrap_or_default().to_owned(),
            command: config["Entrypoint"].clone(),
            ports: config["ExposedPorts"].clone(),
            labels,
            files: BTreeMap::new(),
            bytes: 0,
        };
        assert!(config["Cmd"].is_null(), "{config}");
        for layer in layers {
            let list = Command::new("tar")
                .args(["--numeric-owner", "-tvf"])
                .arg(layer)
                .output()?;
            for line in String::from_utf8(list.stdout)?.lines() {
                // Mode, owner, size, date, time, name.
                let words: Vec<&str> = line.split_whitespace().collect();
                if let [mode, owner, size, _, _, name] = words[..]
                    && !mode.starts_with('d')
                {
                    image.bytes += size.parse::<u64>()?;
                    let told = format!("{mode} {owner} {size}");
                    image.files.insert(name.to_owned(), told);
                }
            }
        }
        Ok(image)
    }
}

/// A program on PATH, or where only root's PATH looks.
fn found(name: &str) -> Result<PathBuf, Failure> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|dir| dir.join(name))
        .find(|file| file.exists())
        .ok_or_else(|| format!("there is no {name}: `hack/setup.sh e2e` installs it").into())
}

/// Runs it to its end, which must be good.
fn run(command: &mut Command) -> Result<(), Failure> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{command:?}: {}: {}", output.status, said.trim()).into())
}
