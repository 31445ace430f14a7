//! Flags about Tasks: how long they may take, and where their outcome is told.

use std::time::Duration;

use clap::Args;
use k8s_openapi::jiff::SignedDuration;

use crate::callback::{Courier, HostEntry, HostPolicy};
use crate::client::CALL_TIMEOUT;
use crate::converge::task::Limits;

/// Flags of `diego controller` about Tasks.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Tasks")]
pub struct TaskArgs {
    /// Seconds after which a Task that found no Cell fails
    #[arg(long, env = "DIEGO_EXPIRE_PENDING_TASK_SECONDS", value_name = "SECONDS", default_value_t = 1800, value_parser = clap::value_parser!(u64).range(1..=604_800))]
    pub expire_pending_task_seconds: u64,
    /// Seconds after its end at which a Task without ttlSecondsAfterFinished is deleted
    #[arg(long, env = "DIEGO_EXPIRE_COMPLETED_TASK_SECONDS", value_name = "SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=604_800))]
    pub expire_completed_task_seconds: u64,
    /// Seconds after which a completion callback that nobody answered is delivered again
    #[arg(long, env = "DIEGO_KICK_TASK_SECONDS", value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub kick_task_seconds: u64,
    /// Seconds that each of the three tries of a completion callback may take
    #[arg(long, env = "DIEGO_CALLBACK_TIMEOUT_SECONDS", value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub callback_timeout_seconds: u64,
    /// Completion callbacks that may be under way at once, a quarter of them to one host and port; the others wait
    #[arg(long, env = "DIEGO_CALLBACK_CONCURRENCY", value_name = "COUNT", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub callback_concurrency: u32,
    /// Where completion callbacks may go, comma separated: host names, *.DOMAIN, IP addresses, CIDRs. Loopback,
    /// link-local and metadata addresses and the presence store only by address or CIDR [default: all but these]
    #[arg(
        long,
        env = "DIEGO_CALLBACK_ALLOWED_HOSTS",
        value_name = "HOST,...",
        value_delimiter = ','
    )]
    pub callback_allowed_hosts: Vec<HostEntry>,
}

/// Flags that don't go together.
#[derive(Debug, thiserror::Error)]
#[error(
    "--kick-task-seconds {kick} is too short for --callback-timeout-seconds {timeout}: one delivery takes up to {longest:?}; set --kick-task-seconds to at least {least}, or --callback-timeout-seconds lower"
)]
pub struct KickTooShort {
    kick: u64,
    timeout: u64,
    longest: Duration,
    least: u64,
}

impl TaskArgs {
    /// Checks flags against each other.
    ///
    /// # Errors
    /// When a delivery could still be under way at its kick, so that two would own it.
    pub fn validate(&self) -> Result<(), KickTooShort> {
        // The write before the tries counts too.
        let longest = Courier::longest(self.callback_timeout()) + CALL_TIMEOUT;
        if longest < Duration::from_secs(self.kick_task_seconds) {
            return Ok(());
        }
        Err(KickTooShort {
            kick: self.kick_task_seconds,
            timeout: self.callback_timeout_seconds,
            longest,
            least: longest.as_secs() + 1,
        })
    }

    /// How long a Task may take for what.
    pub fn limits(&self) -> Limits {
        let seconds = |seconds: u64| SignedDuration::from_secs(seconds.cast_signed());
        Limits {
            expire_pending: seconds(self.expire_pending_task_seconds),
            expire_completed: seconds(self.expire_completed_task_seconds),
            kick: seconds(self.kick_task_seconds),
        }
    }

    /// How long one try of a callback may take.
    pub fn callback_timeout(&self) -> Duration {
        Duration::from_secs(self.callback_timeout_seconds)
    }

    /// Where callbacks may go.
    pub fn host_policy(&self) -> HostPolicy {
        HostPolicy::new(self.callback_allowed_hosts.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        tasks: TaskArgs,
    }

    fn parse(args: &[&str]) -> Result<TaskArgs, String> {
        let words = ["diego"].iter().chain(args);
        let program = Program::try_parse_from(words).map_err(|error| error.to_string())?;
        Ok(program.tasks)
    }

    #[test]
    fn the_defaults_are_diegos_and_go_together() {
        let args = parse(&[]).expect("the defaults");
        assert_eq!(args.limits(), Limits::default());
        args.validate().expect("the defaults go together");
        assert_eq!(args.host_policy(), HostPolicy::default());
    }

    #[test]
    fn a_kick_never_comes_while_a_delivery_may_be_under_way() {
        for (kick, timeout, fits) in [
            ("30", "7", true),
            ("30", "8", false),
            ("10", "1", true),
            ("9", "1", false),
        ] {
            let args = [
                "--kick-task-seconds",
                kick,
                "--callback-timeout-seconds",
                timeout,
            ];
            let checked = parse(&args).expect("each flag is in its range").validate();
            assert_eq!(checked.is_ok(), fits, "{kick} {timeout}");
            let Err(error) = checked else { continue };
            let message = error.to_string();
            for word in args {
                assert!(message.contains(word), "{message}");
            }
            assert!(message.contains("at least"), "{message}");
        }
    }

    #[test]
    fn a_bad_host_names_flag_value_and_remedy() {
        let message = parse(&["--callback-allowed-hosts", "cc.example.com,http://x"])
            .map(|args| args.callback_allowed_hosts)
            .expect_err("a URL is no host");
        for word in ["--callback-allowed-hosts", "http://x", "without scheme"] {
            assert!(message.contains(word), "{message}");
        }
    }
}
