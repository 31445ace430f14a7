//! A machine's clock that a row can set and slow down: a library (`clock.c`) that is loaded into the programs, and a file
//! that tells it how their clock goes.
//!
//! Not libfaketime: its version 0.9.10 takes every absolute timer for one of the wall clock, so that an alarm on
//! CLOCK_BOOTTIME, such as a fence is, goes off at once or never. Programs that ask the kernel themselves (etcd and the API
//! server, which are Go's) can't be deceived by either: their clock is always right.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

use crate::observer::facts::{Nanos, SECOND};
use crate::support::Failure;

/// What is loaded.
const SOURCE: &str = include_str!("clock.c");

/// Where the jump is in the file, after the base and the rate.
const JUMP: u64 = 16;

/// The variables by which the library is loaded, and finds its file.
const LOAD: &str = "LD_PRELOAD";
const FILE: &str = "CLOCK_FILE";

/// The library.
pub struct Library {
    path: PathBuf,
    dir: PathBuf,
}

/// The clock of one machine.
pub struct Clock {
    file: File,
    path: PathBuf,
    library: PathBuf,
    base: i64,
    rate: f64,
}

impl Library {
    /// Compiles it in this directory, where the files of its clocks are then.
    pub fn build(dir: &Path) -> Result<Library, Failure> {
        let (source, path) = (dir.join("clock.c"), dir.join("clock.so"));
        std::fs::write(&source, SOURCE)?;
        let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".into());
        let mut compile = Command::new(&compiler);
        compile.args(["-O2", "-shared", "-fPIC", "-o"]);
        let output = compile.arg(&path).arg(&source).output();
        let output = output.map_err(|error| format!("{compiler}, a C compiler: {error}"))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(format!("{compiler} can't compile clock.c: {said}").into());
        }
        let dir = dir.to_owned();
        Ok(Library { path, dir })
    }

    /// A clock that goes at this rate from now on.
    pub fn clock(&self, name: &str, rate: f64) -> Result<Clock, Failure> {
        let path = self.dir.join(format!("{name}.clock"));
        let base = nanos(ClockId::CLOCK_BOOTTIME)?;
        let file = File::options()
            .create_new(true)
            .read(true)
            .write(true)
            .open(&path)?;
        let parts = [base.to_ne_bytes(), rate.to_ne_bytes(), 0_i64.to_ne_bytes()];
        file.write_all_at(&parts.concat(), 0)?;
        Ok(Clock {
            file,
            path,
            library: self.path.clone(),
            base,
            rate,
        })
    }

    /// What a container's environment needs so that its supervisor has the clock that is named like its Cell; one without
    /// such a clock has the machine's.
    pub fn env(&self) -> Value {
        let file = self.dir.join("$(DIEGO_CELL_ID).clock");
        json!([
            { "name": LOAD, "value": self.path.display().to_string() },
            { "name": FILE, "value": file.display().to_string() },
        ])
    }

    /// This command without the library.
    pub fn without(command: [String; 3]) -> Vec<String> {
        let mut without = ["env", "-u", LOAD].map(str::to_owned).to_vec();
        without.extend(command);
        without
    }
}

impl Clock {
    /// What a program is started through to have this clock.
    pub fn through(&self) -> Vec<String> {
        vec![
            "/usr/bin/env".into(),
            format!("{LOAD}={}", self.library.display()),
            format!("{FILE}={}", self.path.display()),
        ]
    }

    /// The wall clock shows so many seconds more than the machine's.
    pub fn jump(&self, seconds: i64) -> Result<(), Failure> {
        let jump = seconds * SECOND.cast_signed();
        Ok(self.file.write_all_at(&jump.to_ne_bytes(), JUMP)?)
    }

    /// What a process that has this clock says that it shows, and what the machine's then showed.
    pub fn read(&self) -> Result<(f64, f64), Failure> {
        let through = self.through();
        let own = std::env::current_exe()?;
        let before = nanos(ClockId::CLOCK_BOOTTIME)?;
        let output = Command::new(&through[0])
            .args(&through[1..])
            .arg(own)
            .arg("clock")
            .output()?;
        let after = nanos(ClockId::CLOCK_BOOTTIME)?;
        let shown: i64 = String::from_utf8(output.stdout)?.trim().parse()?;
        let machines = before.midpoint(after);
        Ok((shown as f64 / 1e9, machines as f64 / 1e9))
    }

    /// When, on the machine's clock of the observer, a wall clock that goes like this one showed that time.
    pub fn when(&self, shown: f64) -> Result<Nanos, Failure> {
        let boot = nanos(ClockId::CLOCK_BOOTTIME)? as f64;
        let wall = nanos(ClockId::CLOCK_REALTIME)? as f64;
        let ours = nanos(ClockId::CLOCK_MONOTONIC)? as f64;
        let base = self.base as f64;
        // What it shows is the wall's, and what it has gained since its base.
        let machines = (shown * 1e9 - (wall - boot) - base) / self.rate + base;
        Ok((machines + ours - boot).max(0.0) as Nanos)
    }
}

/// What a clock shows here.
fn nanos(clock: ClockId) -> Result<i64, Failure> {
    let time = clock_gettime(clock)?;
    Ok(time.tv_sec() * SECOND.cast_signed() + time.tv_nsec())
}

/// The whole of the mode `clock`: prints what CLOCK_BOOTTIME shows here.
pub fn print() -> Result<(), Failure> {
    println!("{}", nanos(ClockId::CLOCK_BOOTTIME)?);
    Ok(())
}
