//! `make bench`: a fleet of Cells with real presences, an API server full of instances, and what the loss of one Cell,
//! of a tenth and of a zone costs, beside the raw rate of status writes of the same API server in the same run.

#[path = "scale/command.rs"]
mod command;
#[path = "scale/cut.rs"]
mod cut;
#[path = "scale/mod.rs"]
mod scale;
#[path = "../tests/support/mod.rs"]
mod support;

use support::Failure;

#[tokio::main]
async fn main() {
    match bench().await {
        Ok(true) => {}
        Ok(false) => std::process::exit(130),
        Err(failure) => {
            eprintln!("error: {failure}");
            std::process::exit(1);
        }
    }
}

/// Measures, prints the report and, if asked, writes it. Returns whether all of it was measured.
async fn bench() -> Result<bool, Failure> {
    if std::env::var("SUMMARY").is_ok_and(|summary| summary == "1") {
        print!(
            "{}",
            scale::summary::of("docs/benchmarks".as_ref(), "full")?
        );
        return Ok(true);
    }
    let plans = command::plans()?;
    let cut = cut::listen()?;
    let (report, failed) = scale::measure(&plans, &cut).await?;
    print!("{}", report.text());
    if std::env::var("BENCH_WRITE").is_ok_and(|write| write == "1") {
        for file in report.write("docs/benchmarks".as_ref())? {
            println!("written: {}", file.display());
        }
    }
    println!("{}", report.last_line());
    match failed {
        Some(failure) => Err(failure),
        None => Ok(report.whole()),
    }
}
