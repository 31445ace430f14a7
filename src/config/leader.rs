//! Flags about the leader election among controllers.

use std::time::Duration;

use clap::Args;

use crate::controller::leader::Timing;

/// Flags of `diego controller` about who leads.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Leader election")]
pub struct LeaderArgs {
    /// Elect one leader among several controllers; the others stand by, ready to act. Without it this controller
    /// takes itself for the only one
    #[arg(long, env = "DIEGO_LEADER_ELECT")]
    pub leader_elect: bool,
    /// Seconds after which a standby takes a lease that was not renewed
    #[arg(long, env = "DIEGO_LEADER_ELECT_LEASE_DURATION_SECONDS", value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub leader_elect_lease_duration_seconds: u32,
    /// Seconds after the last answered renewal at which the leader stops to write
    #[arg(long, env = "DIEGO_LEADER_ELECT_RENEW_DEADLINE_SECONDS", value_name = "SECONDS", default_value_t = 1.5, value_parser = seconds)]
    pub leader_elect_renew_deadline_seconds: f64,
    /// Seconds between two renewals, and between two tries
    #[arg(long, env = "DIEGO_LEADER_ELECT_RETRY_PERIOD_SECONDS", value_name = "SECONDS", default_value_t = 0.5, value_parser = seconds)]
    pub leader_elect_retry_period_seconds: f64,
}

/// Flags that don't go together.
#[derive(Debug, thiserror::Error)]
pub enum WrongTiming {
    /// A standby could follow while the leader still writes.
    #[error(
        "--leader-elect-renew-deadline-seconds {deadline} is too long for --leader-elect-lease-duration-seconds {duration}: the leader must have stopped before a standby takes over, also where clocks run unlike; set --leader-elect-renew-deadline-seconds to at most {most}"
    )]
    Deadline {
        /// What was given.
        deadline: f64,
        /// What it has to fit into.
        duration: u32,
        /// The remedy.
        most: f64,
    },
    /// One answer that is missing would end the leader's term.
    #[error(
        "--leader-elect-retry-period-seconds {retry} is too long for --leader-elect-renew-deadline-seconds {deadline}: at least two tries must fit; set --leader-elect-retry-period-seconds to at most {most}"
    )]
    Retry {
        /// What was given.
        retry: f64,
        /// What it has to fit into.
        deadline: f64,
        /// The remedy.
        most: f64,
    },
}

/// The part of a lease that its holder may use: what is left covers a write on its way and clocks that run unlike.
const USABLE: f64 = 0.8;

impl LeaderArgs {
    /// Checks flags against each other.
    ///
    /// # Errors
    /// When the leader would stop too late, or for one missing answer.
    pub fn validate(&self) -> Result<(), WrongTiming> {
        let duration = self.leader_elect_lease_duration_seconds;
        let deadline = self.leader_elect_renew_deadline_seconds;
        let retry = self.leader_elect_retry_period_seconds;
        let most = f64::from(duration) * USABLE;
        if deadline > most {
            return Err(WrongTiming::Deadline {
                deadline,
                duration,
                most,
            });
        }
        let most = deadline / 2.0;
        if retry > most {
            return Err(WrongTiming::Retry {
                retry,
                deadline,
                most,
            });
        }
        Ok(())
    }

    /// How long everything takes.
    pub fn timing(&self) -> Timing {
        Timing {
            duration: Duration::from_secs(self.leader_elect_lease_duration_seconds.into()),
            deadline: Duration::from_secs_f64(self.leader_elect_renew_deadline_seconds),
            retry: Duration::from_secs_f64(self.leader_elect_retry_period_seconds),
        }
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.1..=3600.0).contains(&seconds) => Ok(seconds),
        Ok(_) | Err(_) => Err("must be a number of seconds from 0.1 to 3600, such as 1.5".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        leader: LeaderArgs,
    }

    fn parse(args: &[&str]) -> Result<LeaderArgs, String> {
        let words = ["diego"].iter().chain(args);
        let program = Program::try_parse_from(words).map_err(|error| error.to_string())?;
        Ok(program.leader)
    }

    const DURATION: &str = "--leader-elect-lease-duration-seconds";
    const DEADLINE: &str = "--leader-elect-renew-deadline-seconds";
    const RETRY: &str = "--leader-elect-retry-period-seconds";

    #[test]
    fn it_is_off_by_default_and_the_defaults_go_together() {
        let args = parse(&[]).expect("the defaults");
        assert!(!args.leader_elect);
        args.validate().expect("the defaults go together");
        assert!(args.timing().call() < args.timing().retry);
    }

    #[test]
    fn a_leader_stops_in_time_and_survives_one_missing_answer() {
        for (values, wrong) in [
            ([(DURATION, "15"), (DEADLINE, "10"), (RETRY, "2")], None),
            ([(DURATION, "2"), (DEADLINE, "1.6"), (RETRY, "0.8")], None),
            (
                [(DURATION, "2"), (DEADLINE, "1.7"), (RETRY, "0.5")],
                Some([DEADLINE, "1.7", DURATION, "at most 1.6"]),
            ),
            (
                [(DURATION, "2"), (DEADLINE, "1.5"), (RETRY, "0.8")],
                Some([RETRY, "0.8", DEADLINE, "at most 0.75"]),
            ),
        ] {
            let args: Vec<&str> = values
                .iter()
                .flat_map(|(flag, value)| [*flag, value])
                .collect();
            let checked = parse(&args).expect("each flag is in its range").validate();
            let Some(words) = wrong else {
                checked.unwrap_or_else(|error| panic!("{args:?}: {error}"));
                continue;
            };
            let message = checked.expect_err("they don't go together").to_string();
            for word in words {
                assert!(message.contains(word), "{message}");
            }
        }
    }

    #[test]
    fn a_bad_value_names_flag_value_and_remedy() {
        for (flag, value, remedy) in [
            (DURATION, "0", "1..=3600"),
            (DEADLINE, "NaN", "0.1 to 3600"),
            (RETRY, "0", "0.1 to 3600"),
        ] {
            let flag_and_value = format!("{flag}={value}");
            let message = parse(&[&flag_and_value])
                .map(|args| args.timing())
                .expect_err(&flag_and_value);
            for word in [flag, value, remedy] {
                assert!(message.contains(word), "{message}");
            }
        }
    }
}
