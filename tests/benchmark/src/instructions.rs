//! Instructions, counted by an emulator: a figure that does not depend on the machine's load.

use std::{env, fs, process::Command};

use anyhow::{Context, ensure};

use crate::{candidate::Candidate, cloud::Trust, round::Bench, runtime_api::RuntimeApi};

/// Number of events in one count.
const EVENTS: usize = 50;

/// Instructions that a candidate executes.
#[derive(Clone, Copy, Debug)]
pub struct Instructions {
    /// To start.
    pub start: u64,
    /// For the first event.
    pub first: u64,
    /// For each later event.
    pub event: u64,
}

/// Whether this machine can count them.
pub fn can_be_counted() -> bool {
    Command::new("valgrind").arg("--version").output().is_ok_and(|output| output.status.success())
}

impl Bench {
    /// Counts a candidate's instructions.
    ///
    /// # Errors
    ///
    /// It fails under the emulator.
    pub async fn instructions(&self, candidate: &Candidate, trust: Trust) -> anyhow::Result<Instructions> {
        let start = self.count(candidate, trust, 0).await?;
        let first = self.count(candidate, trust, 1).await?;
        let all = self.count(candidate, trust, 1 + EVENTS).await?;
        let event = all.saturating_sub(first) / u64::try_from(EVENTS)?;
        Ok(Instructions { start, first: first.saturating_sub(start), event })
    }

    /// Counts the instructions of a candidate's start and a number of events.
    async fn count(&self, candidate: &Candidate, trust: Trust, count: usize) -> anyhow::Result<u64> {
        let mut api = RuntimeApi::start().await?;
        let log = self.log(candidate).with_extension("valgrind");
        let mut emulated = Candidate { program: "valgrind".into(), ..candidate.clone() };
        let options =
            ["--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"].map(Into::into).into_iter();
        emulated.arguments =
            options.chain([candidate.program.clone().into()]).chain(candidate.arguments.clone()).collect();
        let mut variables = self.variables(&api, trust)?;
        // To find valgrind.
        variables.extend(env::var_os("PATH").map(|path| ("PATH", path)));
        let mut command = emulated.command(&variables, &log)?;
        let mut child = command.spawn().context("cannot start valgrind")?;
        let events = async {
            api.first_poll().await?;
            for number in 0..count {
                api.send(self.event(candidate, number))?.answer().await?;
            }
            anyhow::Ok(())
        };
        let result = events.await;
        // Valgrind prints its count when it is asked to end.
        let asked = Command::new("kill").arg(child.id().to_string()).status()?;
        child.wait()?;
        result?;
        ensure!(asked.success(), "{} ended by itself", candidate.name);
        let log = fs::read_to_string(&log)?;
        let count = log.lines().find_map(|line| line.split_once("I   refs:")).context("no count")?.1;
        Ok(count.trim().replace(',', "").parse()?)
    }
}
