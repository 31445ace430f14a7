//! `check`: how the cluster and the installation are, category by category, each fault with its remedy.
//!
//! `read` asks the API server for all of it at once, the pure `rules` make findings of that, `draw` a report.

mod ask;
mod draw;
mod facts;
mod finding;
mod read;
mod rights;
mod rules;
mod scrape;

use tokio::time::{Duration, Instant};

use super::args::{CheckArgs, Common, Format};
use super::cluster::Cluster;
use super::failure::Failure;
use super::output::{Screen, print, say};
use ask::Asker;
use draw::{Look, report, verdict};
use finding::{Finding, Mark};
use read::Where;

/// How long it is until everything is looked at again.
const AGAIN: Duration = Duration::from_secs(1);

/// Looks, and tells what it found.
///
/// # Errors
/// When something does not work.
pub async fn run(
    cluster: &Cluster,
    args: &CheckArgs,
    common: &Common,
    screen: &Screen,
) -> Result<(), Failure> {
    let until = args.wait.map(|wait| Instant::now() + wait);
    let mut waits = false;
    let mut findings = loop {
        let findings = look(cluster, args, common).await;
        let mut failed = findings.iter().filter(|one| one.result == Mark::Failure);
        let (Some(first), Some(until)) = (failed.next(), until) else {
            break findings;
        };
        if Instant::now() + AGAIN > until {
            break findings;
        }
        if !std::mem::replace(&mut waits, true) {
            say(&format!(
                "waiting until all is well; at first: {}",
                first.message
            ));
        }
        tokio::time::sleep(AGAIN).await;
    };
    for docs in findings.iter_mut().filter_map(|one| one.docs.as_mut()) {
        *docs = format!("{}/{docs}", args.docs.trim_end_matches('/'));
    }
    let look = Look {
        short: screen.format == Format::Short,
        headers: screen.headers,
        width: screen.width,
        unicode: screen.unicode,
        paint: screen.paint,
    };
    match screen.format {
        Format::Table | Format::Wide | Format::Short => print(&report(&findings, look))?,
        Format::Json | Format::Yaml | Format::Name => screen.show(&findings)?,
    }
    match verdict(&findings) {
        Ok(words) => {
            say(&words);
            Ok(())
        }
        Err(words) => Err(Failure::Failed(words)),
    }
}

/// Looks once.
async fn look(cluster: &Cluster, args: &CheckArgs, common: &Common) -> Vec<Finding> {
    let ask = Asker::of(cluster);
    let server = match ask.server().await {
        Ok(server) => server,
        Err(failure) => return vec![rules::unreachable(&failure)],
    };
    let at = Where {
        own: args.diego_namespace.as_deref(),
        // Health is that of all work, unless somebody asks for one namespace.
        work: match common.all_namespaces {
            true => None,
            false => common.namespace.as_deref(),
        },
    };
    match args.pre {
        true => {
            let before = read::before(cluster, server, &at).await;
            match &before.rights {
                Err(failure @ Failure::Unknown { .. }) => vec![rules::unreachable(failure)],
                _ => rules::before(&before),
            }
        }
        false => {
            let facts = read::facts(cluster, server, &at).await;
            match &facts.rights {
                Err(failure @ Failure::Unknown { .. }) => vec![rules::unreachable(failure)],
                _ => rules::judge(&facts),
            }
        }
    }
}
