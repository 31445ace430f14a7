//! The life of instances and Tasks on a Cell with the process executor.

use std::time::Duration;

use diego_operator::api::{ActualLRPState, Task, TaskState};
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::support::{Failure, eventually, http, objects, site::START, site::Site, tree};

async fn site_with_one_cell() -> Result<Site, Failure> {
    let mut site = Site::start().await?;
    site.start_controller(&[]).await?;
    site.start_rep("a", "z1", &[]).await?;
    Ok(site)
}

/// Waits until a Task has ended.
async fn ended(site: &Site, name: &str) -> Result<Task, Failure> {
    let found = eventually(&format!("Task {name} has ended"), START, || async {
        let task = site.tasks().get(name).await.ok()?;
        (task.status.as_ref()?.state == TaskState::Completed).then_some(task)
    })
    .await;
    match found {
        Ok(task) => Ok(task),
        Err(failure) => Err(format!("{failure}\n{}", site.picture().await).into()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_serve_are_scaled_and_stop_with_their_desired_lrp() -> Result<(), Failure> {
    let site = site_with_one_cell().await?;
    site.desire(&objects::servers("web", 3)).await?;
    for lrp in site.running("web", 3, |_| true).await? {
        let status = lrp.status.unwrap_or_default();
        assert_eq!(
            (status.ports.len(), status.ports[0].container_port),
            (1, 8080)
        );
        let address = format!(
            "{}:{}",
            status.address.unwrap_or_default(),
            status.ports[0].host_port
        );
        let (code, _) = http::get(&address, "/", Duration::from_secs(5))
            .await
            .ok_or("no answer")?;
        assert_eq!(code, 200, "a Running instance answers");
    }
    let rep = site.rep("a").process.pid();
    site.desired()
        .patch(
            "web",
            &PatchParams::default(),
            &Patch::Merge(json!({ "spec": { "instances": 1 } })),
        )
        .await?;
    let left = site.running("web", 1, |_| true).await?;
    assert_eq!(left[0].spec.index, 0);
    site.desired().delete("web", &Default::default()).await?;
    eventually("every process is gone", START, || async {
        tree::descendants(rep).is_empty().then_some(())
    })
    .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn crashes_are_counted_and_restarted_by_the_policy() -> Result<(), Failure> {
    let site = site_with_one_cell().await?;
    let container =
        json!({ "name": "main", "command": ["sh", "-c", "echo about to fail >&2; exit 7"] });
    site.desire(&objects::lrp(
        "flaky",
        1,
        json!({ "containers": [container] }),
    ))
    .await?;
    let status = eventually("three restarts at once, then the wait", START, || async {
        let status = site.instances("flaky").await.ok()?.pop()?.status?;
        (status.crash_count == Some(3) && status.state == ActualLRPState::Crashed).then_some(status)
    })
    .await?;
    assert!(
        status
            .crash_reason
            .as_deref()
            .unwrap_or_default()
            .contains("exited with status 7"),
        "{status:?}"
    );
    assert_eq!(status.cell_name, None);
    let wait = status.next_restart_time.map(|next| {
        next.0
            .duration_since(status.state_transition_time.unwrap().0)
    });
    assert_eq!(
        wait.map(|wait| wait.as_secs()),
        Some(30),
        "the next restart shows"
    );
    let message = eventually("the DesiredLRP tells", START, || async {
        let conditions = site.desired().get("flaky").await.ok()?.status?.conditions;
        let ready = conditions
            .into_iter()
            .find(|condition| condition.type_ == "Ready")?;
        (ready.reason == "InstancesCrashed").then_some(ready.message)
    })
    .await?;
    assert!(message.contains("1 crashed"), "{message}");
    let log = find_log(&site.rep("a").work_dir, "stderr.log").ok_or("no stderr is kept")?;
    assert_eq!(std::fs::read_to_string(log)?, "about to fail\n");
    // It stays crashed: the next restart is 30 s away.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let later = site
        .instances("flaky")
        .await?
        .remove(0)
        .status
        .unwrap_or_default();
    assert_eq!(
        (later.crash_count, later.state),
        (Some(3), ActualLRPState::Crashed)
    );
    Ok(())
}

/// A file of that name somewhere below the work directory.
fn find_log(dir: &std::path::Path, name: &str) -> Option<std::path::PathBuf> {
    for entry in std::fs::read_dir(dir).ok()?.flatten() {
        let path = entry.path();
        if path.is_dir() {
            if let Some(found) = find_log(&path, name) {
                return Some(found);
            }
        } else if entry.file_name() == name {
            return Some(path);
        }
    }
    None
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_end_with_their_result_or_with_the_reason() -> Result<(), Failure> {
    let site = site_with_one_cell().await?;
    let mut good = objects::task("good", "printf 'forty-two' > answer");
    good.spec.result_file = Some("answer".into());
    let mut large = objects::task("large", "head -c 20000 /dev/zero | tr '\\0' x > answer");
    large.spec.result_file = Some("answer".into());
    let bad = objects::task("bad", "exit 3");
    let killed = objects::task("killed", "kill -9 $$$$");
    for task in [&good, &large, &bad, &killed] {
        site.run_task(task).await?;
    }
    let status = ended(&site, "good").await?.status.unwrap_or_default();
    assert_eq!(
        (status.failed.unwrap_or(false), status.result.as_deref()),
        (false, Some("forty-two"))
    );
    assert_eq!(
        (&*status.conditions[0].type_, &*status.conditions[0].status),
        ("Succeeded", "True")
    );
    assert!(status.first_completed_time.is_some());
    for (name, words) in [
        ("large", "10240"),
        ("bad", "exited with status 3"),
        ("killed", "signal 9"),
    ] {
        let status = ended(&site, name).await?.status.unwrap_or_default();
        assert_eq!(status.failed, Some(true), "{name}");
        let reason = status.failure_reason.unwrap_or_default();
        assert!(reason.contains(words), "{name}: {reason}");
        assert_eq!(status.conditions[0].status, "False");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_task_can_be_cancelled() -> Result<(), Failure> {
    let site = site_with_one_cell().await?;
    site.run_task(&objects::task("long", "sleep 100000"))
        .await?;
    eventually("it runs", START, || async {
        (site.tasks().get("long").await.ok()?.status?.state == TaskState::Running).then_some(())
    })
    .await?;
    let cancel = Patch::Merge(json!({ "spec": { "cancelled": true } }));
    site.tasks()
        .patch("long", &PatchParams::default(), &cancel)
        .await?;
    let status = ended(&site, "long").await?.status.unwrap_or_default();
    assert_eq!(status.failure_reason.as_deref(), Some("task was cancelled"));
    let rep = site.rep("a").process.pid();
    eventually("its process is gone", START, || async {
        tree::descendants(rep).is_empty().then_some(())
    })
    .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_rep_dies_its_processes_die_with_it() -> Result<(), Failure> {
    let mut site = Site::start().await?;
    site.start_controller(&[]).await?;
    site.start_rep("a", "z1", &[]).await?;
    // One that leaves its process group and its session.
    let script = "setsid sleep 100000 & exec sleep 100000";
    let container = json!({ "name": "main", "command": ["sh", "-c", script] });
    site.desire(&objects::lrp(
        "web",
        2,
        json!({ "containers": [container] }),
    ))
    .await?;
    site.running("web", 2, |_| true).await?;
    let rep = &site.rep("a").process;
    let processes = eventually("all processes are there", START, || async {
        let found = tree::descendants(rep.pid());
        (found.len() >= 6).then_some(found)
    })
    .await?;
    // The rep alone: a machine that dies takes everything, a rep that crashes must see to it.
    rep.kill();
    rep.wait().await;
    eventually("no process is left", START, || async {
        processes
            .iter()
            .all(|pid| !tree::is_alive(*pid))
            .then_some(())
    })
    .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_is_never_ready_counts_as_crashed() -> Result<(), Failure> {
    let site = site_with_one_cell().await?;
    let container =
        json!({ "name": "main", "command": ["sleep", "1000"], "ports": [{ "containerPort": 80 }] });
    let mut deaf = objects::lrp("deaf", 1, json!({ "containers": [container] }));
    deaf.spec.start_timeout_seconds = 1;
    site.desire(&deaf).await?;
    let reason = eventually("it has crashed", START, || async {
        site.instances("deaf")
            .await
            .ok()?
            .pop()?
            .status?
            .crash_reason
    })
    .await?;
    assert!(reason.contains("not ready within 1"), "{reason}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_desired_lrp_that_is_replaced_under_its_name_runs_the_new_template() -> Result<(), Failure>
{
    let site = site_with_one_cell().await?;
    let version = |word: &str| {
        let container =
            json!({ "name": "main", "command": ["sh", "-c", format!("exec sleep {word}")] });
        objects::lrp("web", 2, json!({ "containers": [container] }))
    };
    site.desire(&version("100001")).await?;
    site.running("web", 2, |_| true).await?;
    site.desired().delete("web", &Default::default()).await?;
    site.desire(&version("100002")).await?;
    let rep = site.rep("a").process.pid();
    let running = |word: &str| {
        let commands = tree::descendants(rep)
            .into_iter()
            .filter_map(|pid| std::fs::read(format!("/proc/{pid}/cmdline")).ok());
        commands
            .filter(|line| line == format!("sleep\0{word}\0").as_bytes())
            .count()
    };
    let done = eventually("only the new template runs", START, || async {
        (running("100001") == 0 && running("100002") == 2).then_some(())
    })
    .await;
    if let Err(failure) = done {
        return Err(format!("{failure}\n{}", site.picture().await).into());
    }
    site.running("web", 2, |_| true).await?;
    assert_eq!((running("100001"), running("100002")), (0, 2));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_placement_that_the_cell_gives_back_is_not_tried_in_a_hot_loop() -> Result<(), Failure> {
    let site = site_with_one_cell().await?;
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let port = taken.local_addr()?.port();
    let ports = json!([{ "containerPort": 80, "hostPort": port }]);
    let container = json!({ "name": "main", "command": ["sleep", "1000"], "ports": ports });
    site.desire(&objects::lrp(
        "web",
        1,
        json!({ "containers": [container] }),
    ))
    .await?;
    let status = eventually("it was given back twice", START, || async {
        let status = site.instances("web").await.ok()?.pop()?.status?;
        (status.rejection_count >= Some(2) && status.placement_error.is_some()).then_some(status)
    })
    .await?;
    let error = status.placement_error.unwrap_or_default();
    assert!(error.contains(&port.to_string()), "{error}");
    tokio::time::sleep(Duration::from_secs(4)).await;
    let later = site
        .instances("web")
        .await?
        .remove(0)
        .status
        .unwrap_or_default();
    assert!(
        later.rejection_count <= Some(5),
        "{:?}",
        later.rejection_count
    );
    Ok(())
}
