//! The command line of `kubectl diego`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::failure::Failure;
use super::kind::{Kind, Object};

/// What the exit statuses mean.
const STATUSES: &str = "\
Exit status:
  0  done
  1  it failed: stderr says why, and what to do
  2  the command line is wrong
  3  --timeout passed before it was done
  130  ctrl-c ended the waiting; what was asked for goes on

Results go to stdout, words to stderr. Without --color, colours are used on a terminal only, and not with NO_COLOR set.";

/// Diego on Kubernetes: what runs where, what was lost, and what an operator may do about it.
///
/// It acts with the rights of your own kubeconfig.
#[derive(Debug, Parser)]
#[command(name = "kubectl-diego", bin_name = "kubectl diego", version, max_term_width = 100, after_help = STATUSES)]
pub struct Cli {
    /// Flags of all verbs.
    #[command(flatten)]
    pub common: Common,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// Flags of all verbs.
#[derive(Debug, Clone, Args)]
pub struct Common {
    /// Path of the kubeconfig file [default: $KUBECONFIG, then ~/.kube/config]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Kubernetes")]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig to use [default: its current context]
    #[arg(long, global = true, value_name = "NAME", help_heading = "Kubernetes")]
    pub context: Option<String>,
    /// Namespace of ActualLRPs and Tasks [default: that of the context]; Cells have none
    #[arg(
        short,
        long,
        global = true,
        value_name = "NAMESPACE",
        help_heading = "Kubernetes"
    )]
    pub namespace: Option<String>,
    /// ActualLRPs and Tasks of all namespaces
    #[arg(short = 'A', long, global = true, help_heading = "Kubernetes")]
    pub all_namespaces: bool,
    /// Act as this user; needs the right to impersonate
    #[arg(
        long = "as",
        global = true,
        value_name = "USER",
        help_heading = "Kubernetes"
    )]
    pub user: Option<String>,
    /// How results look; json is one object a line
    #[arg(
        short,
        long,
        global = true,
        value_enum,
        value_name = "FORMAT",
        default_value = "table",
        hide_default_value = true,
        help_heading = "Output"
    )]
    pub output: Format,
    /// Leave the head of the table out
    #[arg(long, global = true, help_heading = "Output")]
    pub no_headers: bool,
    /// When to use colours
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "WHEN",
        default_value = "auto",
        hide_default_value = true,
        help_heading = "Output"
    )]
    pub color: When,
}

impl Cli {
    /// Whether its words go together.
    ///
    /// # Errors
    /// When they do not.
    pub fn check(&self) -> Result<(), Failure> {
        let wrong = |words: &str| Err(Failure::Usage(words.into()));
        let people = matches!(
            self.common.output,
            Format::Table | Format::Wide | Format::Short
        );
        match &self.verb {
            Verb::Retire(_) | Verb::Cancel(_) | Verb::Trace(_) if self.common.all_namespaces => {
                wrong("-A does not go with names: choose the namespace with -n")
            }
            Verb::Distribution(args) if args.watch && !people => wrong(
                "-w draws for people: leave -o out, or take -o wide; programs watch with kubectl get -w -o json",
            ),
            Verb::Check(_) if self.common.output == Format::Name => {
                wrong("check finds no objects with names: take -o table, short, json or yaml")
            }
            Verb::Check(_) => Ok(()),
            _ if self.common.output == Format::Short => {
                wrong("-o short is check's: take -o table, wide, json, yaml or name")
            }
            _ => Ok(()),
        }
    }
}

/// How results look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    Table,
    /// For people, with more columns
    Wide,
    /// One object a line
    Json,
    /// One document each
    Yaml,
    /// resource/name, for kubectl
    Name,
    /// Of check: only what isn't right
    Short,
}

/// When colours are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum When {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    /// Into pipes and files, too
    Always,
    /// Not at all
    Never,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Find out whether all is well, and what to do about what isn't
    Check(CheckArgs),
    /// Show what runs where: Cells by zone, one block per instance
    Distribution(DistributionArgs),
    /// Show what Cells have and what is used of it
    Top(CellsArgs),
    /// Show the last loss of each Cell: when it was lost, found and mended, and what it cost
    Recoveries(CellsArgs),
    /// Show what happened to one object and why, in order of time
    Trace(TraceArgs),
    /// Keep new work away from Cells; what runs there goes on
    Cordon(SomeCellsArgs),
    /// Let Cells take work again; one that is being emptied already is emptied first
    Uncordon(SomeCellsArgs),
    /// Move the work of Cells away, start before stop (Strict: stop before start), and wait until it has moved
    Evacuate(EvacuateArgs),
    /// Stop ActualLRPs; a fresh instance is started in the place of each
    Retire(RetireArgs),
    /// Cancel Tasks: those that run are stopped, those that wait never run
    Cancel(CancelArgs),
}

/// Arguments of `check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Only what must be so before an installation
    #[arg(long)]
    pub pre: bool,
    /// Look again and again until nothing fails, for so long at most, such as 90s, 15m or 1h
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub wait: Option<Duration>,
    /// Namespace of the controllers [default: where they are found]
    #[arg(long, value_name = "NAMESPACE")]
    pub diego_namespace: Option<String>,
    /// Where the documents are that remedies point to
    #[arg(
        long,
        env = "DIEGO_DOCS",
        value_name = "URL",
        default_value = "docs",
        hide_env_values = true
    )]
    pub docs: String,
}

/// Arguments of `distribution`.
#[derive(Debug, Args)]
pub struct DistributionArgs {
    /// Go on and draw it anew at each change, until you stop it
    #[arg(short, long)]
    pub watch: bool,
}

/// Cells, or all of them.
#[derive(Debug, Args)]
pub struct CellsArgs {
    /// Only these Cells
    #[arg(value_name = "CELL", value_parser = |text: &str| Kind::Cell.name_in(text))]
    pub cells: Vec<String>,
}

/// Cells, at least one.
#[derive(Debug, Args)]
pub struct SomeCellsArgs {
    /// The Cells
    #[arg(value_name = "CELL", required = true, value_parser = |text: &str| Kind::Cell.name_in(text))]
    pub cells: Vec<String>,
}

/// Arguments of `evacuate`.
#[derive(Debug, Args)]
pub struct EvacuateArgs {
    /// The Cells
    #[arg(value_name = "CELL", required = true, value_parser = |text: &str| Kind::Cell.name_in(text))]
    pub cells: Vec<String>,
    /// How long to wait, such as 90s, 15m or 1h; 0 waits for ever
    #[arg(long, value_name = "DURATION", default_value = "15m", value_parser = duration)]
    pub timeout: Duration,
    /// Ask for it and wait for nothing
    #[arg(long, conflicts_with = "timeout")]
    pub no_wait: bool,
}

/// Arguments of `retire`.
#[derive(Debug, Args)]
pub struct RetireArgs {
    /// The ActualLRPs, such as web-0
    #[arg(value_name = "ACTUALLRP", required = true, value_parser = |text: &str| Kind::ActualLRP.name_in(text))]
    pub instances: Vec<String>,
    /// Also those whose missing Cell may still run them, though no second one may run (missingCellPolicy Strict)
    #[arg(long)]
    pub force: bool,
}

/// Arguments of `cancel`.
#[derive(Debug, Args)]
pub struct CancelArgs {
    /// The Tasks
    #[arg(value_name = "TASK", required = true, value_parser = |text: &str| Kind::Task.name_in(text))]
    pub tasks: Vec<String>,
}

/// Arguments of `trace`.
#[derive(Debug, Args)]
pub struct TraceArgs {
    /// cell/NAME, actuallrp/NAME or task/NAME
    #[arg(value_name = "KIND/NAME")]
    pub object: Object,
}

/// A duration as kubectl has it, in whole numbers.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || {
        format!(
            "'{text}' is no duration: write a number and s, m or h, such as 90s, 15m or 1h; 0 is for ever"
        )
    };
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    let seconds = match &text[digits.len()..] {
        "h" => 3600,
        "m" => 60,
        "s" => 1,
        "" if number == 0 => 1,
        _ => return Err(wrong()),
    };
    number
        .checked_mul(seconds)
        .filter(|seconds| *seconds <= 366 * 24 * 3600)
        .map(Duration::from_secs)
        .ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_stand_before_or_after_the_verb() {
        for line in [
            "kubectl-diego -n prod -o json evacuate cell/a b --timeout 90s",
            "kubectl-diego evacuate a cells/b --timeout=90s -o json --namespace prod",
        ] {
            let cli = Cli::try_parse_from(line.split(' ')).expect(line);
            assert_eq!(
                (cli.common.namespace.as_deref(), cli.common.output),
                (Some("prod"), Format::Json)
            );
            let Verb::Evacuate(args) = cli.verb else {
                panic!("{line}");
            };
            assert_eq!(args.cells, ["a", "b"]);
            assert_eq!(args.timeout, Duration::from_secs(90));
        }
    }

    #[test]
    fn wrong_words_are_told_with_what_to_write() {
        for (line, word) in [
            ("kubectl-diego cordon task/a", "cell/NAME"),
            ("kubectl-diego trace web", "actuallrp/NAME"),
            ("kubectl-diego trace pod/web", "actuallrp/NAME"),
            ("kubectl-diego evacuate a --timeout soon", "15m"),
            (
                "kubectl-diego evacuate a --timeout 99999999999999999999h",
                "15m",
            ),
            ("kubectl-diego cordon", "<CELL>"),
            ("kubectl-diego cordon a/b", "cell/NAME"),
            (
                "kubectl-diego evacuate a --no-wait --timeout 5s",
                "--timeout",
            ),
        ] {
            let error = Cli::try_parse_from(line.split(' ')).expect_err(line);
            assert_eq!(error.exit_code(), 2, "{line}");
            assert!(error.to_string().contains(word), "{line}: {error}");
        }
        assert_eq!(duration("0"), Ok(Duration::ZERO));
    }
}
