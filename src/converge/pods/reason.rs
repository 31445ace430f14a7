//! Why a Pod ended or does not start, in the words of its record; and which ends are no crash.

use nix::sys::signal::Signal;

use super::{ContainerRecord, ContainerStage, Phase, PodRecord};

/// What a termination message adds to a reason is cut after so many characters.
const MAX_TAIL: usize = 200;

/// Why a Pod was taken away, or not taken on, by the node and not by what it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rejection {
    /// The node ran out of memory, disk or process ids.
    Evicted,
    /// It made room for something more important.
    Preempted,
    /// The kubelet did not take it on.
    NotAdmitted,
    /// The node shuts down.
    NodeShutdown,
    /// Somebody drained the node, or the like.
    Disrupted,
    /// The API server refused to make it.
    Refused,
}

impl Rejection {
    /// Every kind, for metrics that exist from the start.
    pub const ALL: [Rejection; 6] = [
        Self::Evicted,
        Self::Preempted,
        Self::NotAdmitted,
        Self::NodeShutdown,
        Self::Disrupted,
        Self::Refused,
    ];

    /// The label of its metric.
    pub fn as_str(self) -> &'static str {
        match self {
            Rejection::Evicted => "evicted",
            Rejection::Preempted => "preempted",
            Rejection::NotAdmitted => "not_admitted",
            Rejection::NodeShutdown => "node_shutdown",
            Rejection::Disrupted => "disrupted",
            Rejection::Refused => "refused",
        }
    }
}

/// What the API server says against a Pod, without the Pod's name: each try has another one, and the words are to be the
/// same as long as the reason is.
pub fn refusal(message: &str, pod: &str) -> String {
    let openings = [
        format!("pods \"{pod}\" is forbidden: "),
        format!("Pod \"{pod}\" is invalid: "),
    ];
    let opening = openings.iter().find(|words| message.starts_with(*words));
    message[opening.map_or(0, String::len)..].to_owned()
}

/// Whether a failed Pod was the node's doing, and why in words.
pub(super) fn rejection(pod: &PodRecord) -> Option<(Rejection, String)> {
    if pod.phase != Phase::Failed {
        return None;
    }
    let reason = pod.reason.as_deref().unwrap_or_default();
    let words = || joined(reason, pod.message.as_deref().unwrap_or_default());
    let kind = match reason {
        "Evicted" => Rejection::Evicted,
        "Preempting" | "Preempted" => Rejection::Preempted,
        "NodeShutdown" | "Shutdown" | "Terminated" | "NodeLost" => Rejection::NodeShutdown,
        "NodeAffinity" | "TaintToleration" | "UnexpectedAdmissionError" => Rejection::NotAdmitted,
        out if out.starts_with("OutOf") => Rejection::NotAdmitted,
        // What it did itself.
        "DeadlineExceeded" => return None,
        _ => {
            if let Some(told) = &pod.disruption {
                return Some((Rejection::Disrupted, told.clone()));
            }
            // Nothing of it ever ran: the kubelet has more reasons than are listed here.
            let ran = |one: &ContainerRecord| matches!(one.state, ContainerStage::Ended { .. });
            if reason.is_empty() || pod.init.iter().chain(&pod.containers).any(ran) {
                return None;
            }
            Rejection::NotAdmitted
        }
    };
    Some((kind, words()))
}

/// Why a Pod that failed by its own doing failed.
pub(super) fn failure(pod: &PodRecord) -> String {
    if let Some(reason) = &pod.reason {
        return joined(reason, pod.message.as_deref().unwrap_or_default());
    }
    let all = pod.init.iter().chain(&pod.containers);
    let bad = all.filter_map(|one| ended(pod, one).filter(|(status, _)| *status != 0));
    // The kubelet stops the others when one has failed for good: the first that names a cause is it.
    bad.map(|(_, words)| words)
        .next()
        .or_else(|| pod.message.clone())
        .unwrap_or_else(|| "the Pod failed for no known reason".into())
}

/// How a container ended: its exit status, and in words.
pub(super) fn ended(pod: &PodRecord, one: &ContainerRecord) -> Option<(i32, String)> {
    let ContainerStage::Ended {
        status,
        signal,
        reason,
        message,
    } = &one.state
    else {
        return None;
    };
    let who = match pod.containers.len() + pod.init.len() {
        ..=1 => String::new(),
        _ => format!("container {} ", one.name),
    };
    let how = match (signal, status) {
        (Some(signal), _) => killed(*signal),
        (None, 129..=159) => format!("exited with status {status}, {}", killed(status - 128)),
        (None, _) => format!("exited with status {status}"),
    };
    let words = match reason.as_str() {
        "" | "Error" | "Completed" => format!("{who}{how}"),
        named => format!("{named}: {who}{how}"),
    };
    let tail: String = message.trim().chars().take(MAX_TAIL).collect();
    let words = match (*status, tail.as_str()) {
        (0, _) | (_, "") => words,
        (_, tail) => format!("{words}: {tail}"),
    };
    Some((*status, words))
}

fn killed(signal: i32) -> String {
    match Signal::try_from(signal) {
        Ok(name) => format!("killed by signal {signal} ({name})"),
        Err(_) => format!("killed by signal {signal}"),
    }
}

/// What keeps a container from starting, where it waits for more than its turn.
pub(super) struct Stuck {
    /// Time won't mend it, or the kubelet has given up once already.
    pub(super) for_good: bool,
    /// In the kubelet's words.
    pub(super) words: String,
}

/// The first container that can't start.
pub(super) fn stuck(pod: &PodRecord) -> Option<Stuck> {
    let mut all = pod.init.iter().chain(&pod.containers);
    all.find_map(|one| {
        let ContainerStage::Waiting { reason, message } = &one.state else {
            return None;
        };
        let for_good = match reason.as_str() {
            "" | "ContainerCreating" | "PodInitializing" => return None,
            "InvalidImageName" | "ErrImageNeverPull" | "ImagePullBackOff" => true,
            // CreateContainerConfigError: what it refers to may still come. ErrImagePull: the first try.
            _ => false,
        };
        Some(Stuck {
            for_good,
            words: joined(reason, message),
        })
    })
}

pub(super) fn joined(reason: &str, message: &str) -> String {
    match (reason, message.trim()) {
        (reason, "") => reason.to_owned(),
        ("", message) => message.to_owned(),
        (reason, message) => format!("{reason}: {message}"),
    }
}
