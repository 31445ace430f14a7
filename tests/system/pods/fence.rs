//! The rep and `diego fence` beside it: deadlines, signs of life, and what the store hears of them.
//!
//! That Pods are stopped is shown with real container runtimes, in `tests/e2e/fencing.rs`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use diego_operator::boottime;
use diego_operator::fence::stamp::{self, Deadline};
use diego_operator::presence::{PresenceValue, etcd};
use diego_operator::rep::procfs;
use local_cluster::{ServerProcess, free_port};
use tokio::task::JoinHandle;

use super::make_node;
use crate::support::{Failure, eventually, http, site::START, site::Site};

/// The files between a rep and its fencer, as the volume that they share.
struct Files(PathBuf);

impl Files {
    fn new(site: &Site, name: &str) -> Result<Self, Failure> {
        let dir = site.dir().join(name);
        fs::create_dir(&dir)?;
        Ok(Self(dir))
    }

    fn deadline_file(&self) -> PathBuf {
        self.0.join("deadline")
    }

    fn of_rep(&self) -> [String; 2] {
        let file = |flag: &str, file: &str| format!("{flag}={}", self.0.join(file).display());
        [
            file("--fence-deadline-file", "deadline"),
            file("--fence-ready-file", "ready"),
        ]
    }

    /// What the rep says, to a fencer of this boot.
    fn deadline(&self) -> Option<Deadline> {
        let text = fs::read_to_string(self.deadline_file()).ok()?;
        let (deadline, boot) = Deadline::parse(&text).expect("a line");
        assert_eq!(boot, procfs::boot_id().expect("a boot id"));
        Some(deadline)
    }

    /// Says what a fencer that is at work says, until it is dropped.
    fn fencer(&self) -> Fencer {
        let ready = self.0.join("ready");
        Fencer(tokio::spawn(async move {
            let boot = procfs::boot_id().expect("a boot id");
            loop {
                let line = Deadline::At(boottime::now()).line(&boot);
                stamp::write(&ready, &line).expect("written");
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        }))
    }
}

struct Fencer(JoinHandle<()>);

impl Drop for Fencer {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn rep(site: &Site, files: &Files) -> Result<ServerProcess, Failure> {
    let flags = files.of_rep();
    site.node_rep("a", &[&flags[0], &flags[1]]).await
}

async fn value(site: &Site) -> Option<PresenceValue> {
    let mut client = etcd_client::Client::connect(site.etcd.endpoints(), None)
        .await
        .ok()?;
    let answer = client.get(etcd::key("a"), None).await.ok()?;
    serde_json::from_slice(answer.kvs().first()?.value()).ok()
}

async fn fence_is(site: &Site, wanted: bool) -> Result<(), Failure> {
    eventually(&format!("fence: {wanted}"), START, || async {
        (value(site).await?.fence == wanted).then_some(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_hears_of_a_fence_only_while_there_is_one() -> Result<(), Failure> {
    let site = Site::start().await?;
    make_node(&site.client, "a").await?;
    let (first, second) = (Files::new(&site, "first")?, Files::new(&site, "second")?);
    let older = rep(&site, &first).await?;
    // Without a fencer there is no deadline that one could find later.
    assert_eq!(first.deadline(), None);
    assert_eq!(value(&site).await.map(|value| value.fence), Some(false));

    let fencer = first.fencer();
    fence_is(&site, true).await?;
    let mut last = boottime::now();
    for _ in 0..3 {
        let moved = || async {
            match first.deadline()? {
                Deadline::At(at) => (at > last).then_some(at),
                Deadline::Off => None,
            }
        };
        last = eventually("the deadline moves on", START, moved).await?;
        // 4.05 s from the renewal that was answered.
        assert!(last.since(boottime::now()) <= Duration::from_millis(4050));
    }
    drop(fencer);
    fence_is(&site, false).await?;
    let back = || async { (first.deadline()? == Deadline::Off).then_some(()) };
    eventually("the deadline is taken back", START, back).await?;

    // A newer rep of the machine takes over: the older fencer must not act on a Cell that lives on.
    let _fencer = first.fencer();
    fence_is(&site, true).await?;
    let newer = rep(&site, &second).await?;
    eventually("the older rep takes its deadline back", START, || async {
        (first.deadline()? == Deadline::Off).then_some(())
    })
    .await?;
    fence_is(&site, false).await?;
    assert_eq!(second.deadline(), None, "it has no fencer yet");
    older.terminate();
    older.wait().await;

    // One that leaves takes its promise back before its fencer goes, and leaves the presence to the next one.
    let _fencer = second.fencer();
    fence_is(&site, true).await?;
    newer.terminate();
    newer.wait().await;
    assert_eq!(second.deadline(), Some(Deadline::Off));
    assert_eq!(value(&site).await.map(|value| value.fence), Some(false));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rep_that_is_killed_leaves_its_deadline_behind() -> Result<(), Failure> {
    let site = Site::start().await?;
    make_node(&site.client, "a").await?;
    let files = Files::new(&site, "files")?;
    let _fencer = files.fencer();
    let process = rep(&site, &files).await?;
    fence_is(&site, true).await?;
    process.kill();
    process.wait().await;
    let Some(Deadline::At(deadline)) = files.deadline() else {
        return Err("there is no deadline".into());
    };
    // The next one of the same container goes on with it.
    let _next = rep(&site, &files).await?;
    eventually("the deadline moves on", START, || async {
        match files.deadline()? {
            Deadline::At(at) => (at > deadline).then_some(()),
            Deadline::Off => None,
        }
    })
    .await
}

/// A fencer without a container runtime.
struct Lonely {
    process: ServerProcess,
    health: String,
}

impl Lonely {
    async fn start(dir: &Path, files: &Path) -> Result<Self, Failure> {
        let health = format!("127.0.0.1:{}", free_port()?);
        let args = [
            "fence".to_owned(),
            format!("--deadline-file={}", files.join("deadline").display()),
            format!("--ready-file={}", files.join("ready").display()),
            format!("--cri-socket=unix://{}", dir.join("no.sock").display()),
            format!("--health-addr={health}"),
        ];
        let log = dir.join("fence.log");
        let process = ServerProcess::start("fence", &Site::program()?, &args, &[], &log)?;
        let alive = || async {
            let answer = http::get(&health, "/livez", Duration::from_secs(5)).await;
            answer.is_some_and(|(status, _)| status == 200)
        };
        process.ready(START, alive).await?;
        Ok(Self { process, health })
    }

    async fn says(&self, words: &str) -> Result<(), Failure> {
        eventually(words, START, || async {
            let said = fs::read_to_string(self.process.log()).ok()?;
            said.contains(words).then_some(())
        })
        .await
    }
}

#[tokio::test]
async fn a_fencer_that_can_stop_nothing_does_not_say_that_it_can() -> Result<(), Failure> {
    let dir = tempfile::tempdir()?;
    let file = |name: &str| dir.path().join(name);
    let boot = procfs::boot_id()?;
    // A deadline of another boot is none.
    let past = Deadline::At(boottime::now());
    stamp::write(&file("deadline"), &past.line("another-boot"))?;
    let fencer = Lonely::start(dir.path(), dir.path()).await?;
    fencer.says("it is of another boot, another-boot").await?;
    fencer.says("--cri-socket is the runtime's socket").await?;
    let ready = http::get(&fencer.health, "/readyz", Duration::from_secs(5)).await;
    assert_eq!(ready.map(|(status, _)| status), Some(503));
    assert!(!file("ready").exists());

    // One of this boot counts, also when it was never seen ahead.
    stamp::write(&file("deadline"), &past.line(&boot))?;
    fencer.says("the deadline has passed").await?;
    fencer.says("can't be stopped; trying on").await?;
    // Told to stop it stays for as long as somebody relies on it.
    fencer.process.terminate();
    stamp::write(&file("deadline"), &Deadline::Off.line(&boot))?;
    let status = tokio::time::timeout(START, fencer.process.wait()).await?;
    assert!(status.success(), "{status}");
    let said = fs::read_to_string(fencer.process.log())?;
    for once in [
        "not armed: no rep",
        "the deadline has passed",
        "not armed any more",
    ] {
        assert_eq!(said.matches(once).count(), 1, "{once}: {said}");
    }
    Ok(())
}
