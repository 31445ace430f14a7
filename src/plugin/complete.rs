//! Completion: kubectl runs `kubectl_complete-diego` with the words typed so far, and reads proposals, one a line.

use std::time::Duration;

use clap::{ArgAction, CommandFactory, Parser};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;

use super::args::{Cli, Common};
use super::cluster::Cluster;
use super::kind::Kind;
use crate::api::{ActualLRP, Task};
use k8s_openapi::api::core::v1::Namespace;

/// Who waits for a proposal types on sooner.
const PATIENCE: Duration = Duration::from_secs(2);

/// Tells the shell that proposals are all there is.
const NO_FILES: &str = ":4\n";

/// Tells the shell to propose files.
const FILES: &str = ":0\n";

/// What may come next.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// One of these words, with what they mean.
    Words(Vec<(String, String)>),
    /// The name of an object of one of these kinds; true with the kind before it.
    Objects(&'static [Kind], bool),
    /// A namespace.
    Namespaces,
    /// A context of the kubeconfig.
    Contexts,
    /// A file.
    Files,
    /// Something that nobody can guess.
    Free,
}

/// What may come after these words; the last one is not whole.
fn next(words: &[String]) -> Next {
    let command = Cli::command();
    let (done, last) = match words.split_last() {
        Some((last, done)) => (done, last.as_str()),
        None => (words, ""),
    };
    // The verb is the first word that is neither a flag nor a flag's value.
    let mut verb = None;
    let mut value_of: Option<clap::Arg> = None;
    for word in done {
        if value_of.take().is_some() {
            continue;
        }
        match word.starts_with('-') && word != "-" {
            true => value_of = flag(verb.unwrap_or(&command), &command, word),
            false if verb.is_none() => verb = command.find_subcommand(word),
            false => {}
        }
    }
    if let Some(arg) = value_of {
        return values(&arg);
    }
    if last.starts_with('-') {
        let own = verb.into_iter().flat_map(clap::Command::get_arguments);
        let all = own.chain(
            command
                .get_arguments()
                .filter(|arg| verb.is_none() || arg.is_global_set()),
        );
        return Next::Words(all.filter_map(described).collect());
    }
    match verb.map(clap::Command::get_name) {
        None => Next::Words(
            command
                .get_subcommands()
                .map(|verb| (verb.get_name().to_owned(), about(verb.get_about())))
                .collect(),
        ),
        Some("top" | "recoveries" | "cordon" | "uncordon" | "evacuate") => {
            Next::Objects(&[Kind::Cell], false)
        }
        Some("retire") => Next::Objects(&[Kind::ActualLRP], false),
        Some("cancel") => Next::Objects(&[Kind::Task], false),
        Some("trace") => Next::Objects(&Kind::ALL, true),
        Some(_) => Next::Free,
    }
}

/// The flag that this word is, if its value is the next word.
fn flag(verb: &clap::Command, command: &clap::Command, word: &str) -> Option<clap::Arg> {
    let is_it = |arg: &&clap::Arg| {
        let long = arg
            .get_long()
            .is_some_and(|long| word == format!("--{long}"));
        let short = arg
            .get_short()
            .is_some_and(|short| word == format!("-{short}"));
        (long || short) && matches!(arg.get_action(), ArgAction::Set)
    };
    let mut all = verb.get_arguments().chain(command.get_arguments());
    all.find(is_it).cloned()
}

fn about(text: Option<&clap::builder::StyledStr>) -> String {
    text.map(ToString::to_string).unwrap_or_default()
}

fn described(arg: &clap::Arg) -> Option<(String, String)> {
    let long = arg.get_long()?;
    Some((format!("--{long}"), about(arg.get_help())))
}

fn values(arg: &clap::Arg) -> Next {
    let possible = arg.get_possible_values();
    match arg.get_id().as_str() {
        "namespace" => Next::Namespaces,
        "context" => Next::Contexts,
        "kubeconfig" => Next::Files,
        _ if possible.is_empty() => Next::Free,
        _ => Next::Words(
            possible
                .iter()
                .map(|value| (value.get_name().to_owned(), about(value.get_help())))
                .collect(),
        ),
    }
}

/// Proposals as kubectl reads them.
fn proposals(words: &[(String, String)], start: &str) -> String {
    let mut text = String::new();
    for (word, what) in words.iter().filter(|(word, _)| word.starts_with(start)) {
        text += word;
        if !what.is_empty() {
            text += &format!("\t{what}");
        }
        text.push('\n');
    }
    text + NO_FILES
}

/// The flags of Kubernetes among the words typed so far: they say whose names to propose.
fn common(words: &[String]) -> Common {
    let mut line = vec!["kubectl-diego".to_owned()];
    let mut words = words.iter().peekable();
    while let Some(word) = words.next() {
        let name = word.split_once('=').map_or(word.as_str(), |(name, _)| name);
        match name {
            "-A" | "--all-namespaces" => line.push(word.clone()),
            "-n" | "--namespace" | "--context" | "--kubeconfig" | "--as" => {
                let whole = word.contains('=');
                match words.peek() {
                    _ if whole => line.push(word.clone()),
                    Some(value) => line.extend([word.clone(), (*value).clone()]),
                    None => {}
                }
            }
            _ => {}
        }
    }
    line.push("top".into());
    let parsed = Cli::try_parse_from(&line);
    parsed
        .or_else(|_| Cli::try_parse_from(["kubectl-diego", "top"]))
        .expect("a verb alone is a command line")
        .common
}

/// Prints what may come next. Whatever goes wrong, nothing is said: it would land in the middle of the user's line.
pub async fn run(words: &[String]) -> String {
    let last = words.last().map(String::as_str).unwrap_or_default();
    let found = match next(words) {
        Next::Words(words) => words,
        Next::Files => return FILES.into(),
        Next::Free => Vec::new(),
        Next::Contexts => contexts(&common(words)),
        asked @ (Next::Objects(..) | Next::Namespaces) => {
            let common = common(words);
            let found = tokio::time::timeout(PATIENCE, names(&common, &asked)).await;
            let found = found.ok().flatten().unwrap_or_default();
            found
                .into_iter()
                .map(|name| (name, String::new()))
                .collect()
        }
    };
    proposals(&found, last)
}

fn contexts(common: &Common) -> Vec<(String, String)> {
    let kubeconfig = match &common.kubeconfig {
        Some(path) => kube::config::Kubeconfig::read_from(path),
        None => kube::config::Kubeconfig::read(),
    };
    let contexts = kubeconfig
        .map(|kubeconfig| kubeconfig.contexts)
        .unwrap_or_default();
    contexts
        .into_iter()
        .map(|context| (context.name, String::new()))
        .collect()
}

async fn names(common: &Common, asked: &Next) -> Option<Vec<String>> {
    let cluster = Cluster::new(common).await.ok()?;
    let Next::Objects(kinds, with_kind) = asked else {
        return of(&cluster, &Api::<Namespace>::all(cluster.client.clone())).await;
    };
    let mut all = Vec::new();
    for kind in *kinds {
        let names = match kind {
            Kind::Cell => of(&cluster, &cluster.cells()).await,
            Kind::ActualLRP => of(&cluster, &cluster.own::<ActualLRP>()).await,
            Kind::Task => of(&cluster, &cluster.own::<Task>()).await,
        };
        let names = names.unwrap_or_default().into_iter();
        all.extend(names.map(|name| match with_kind {
            true => format!("{}/{name}", kind.singular()),
            false => name,
        }));
    }
    Some(all)
}

async fn of<K>(cluster: &Cluster, api: &Api<K>) -> Option<Vec<String>>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let objects = cluster.list(api, "").await.ok()?;
    Some(objects.iter().map(ResourceExt::name_any).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(line: &str) -> Next {
        next(&line.split(' ').map(String::from).collect::<Vec<_>>())
    }

    fn words(next: Next) -> Vec<String> {
        match next {
            Next::Words(words) => words.into_iter().map(|(word, _)| word).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_may_come_next() {
        let verbs = words(after(""));
        assert!(
            ["distribution", "trace", "evacuate"]
                .iter()
                .all(|verb| verbs.iter().any(|word| word == verb))
        );
        assert_eq!(after("cordon "), Next::Objects(&[Kind::Cell], false));
        assert_eq!(
            after("-n prod retire we"),
            Next::Objects(&[Kind::ActualLRP], false)
        );
        assert_eq!(after("trace "), Next::Objects(&Kind::ALL, true));
        assert_eq!(after("-n "), Next::Namespaces);
        assert_eq!(after("top --context "), Next::Contexts);
        assert_eq!(after("--kubeconfig "), Next::Files);
        assert_eq!(
            words(after("top -o ")),
            ["table", "wide", "json", "yaml", "name", "short"]
        );
        assert_eq!(after("evacuate a --timeout "), Next::Free);
        let flags = words(after("evacuate --"));
        assert!(
            flags.contains(&"--timeout".into()) && flags.contains(&"--context".into()),
            "{flags:?}"
        );
    }

    #[test]
    fn proposals_are_what_kubectl_reads() {
        let words = [("top", "Show"), ("trace", "")].map(|(a, b)| (a.to_owned(), b.to_owned()));
        assert_eq!(proposals(&words, "t"), "top\tShow\ntrace\n:4\n");
        assert_eq!(proposals(&words, "to"), "top\tShow\n:4\n");
    }

    #[test]
    fn names_are_those_of_the_cluster_that_is_meant() {
        let typed = ["retire", "--bogus", "-n", "prod", "--context=other", "we"].map(String::from);
        let common = common(&typed);
        assert_eq!(
            (common.namespace.as_deref(), common.context.as_deref()),
            (Some("prod"), Some("other"))
        );
    }
}
