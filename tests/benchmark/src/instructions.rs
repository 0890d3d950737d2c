//! Instructions, pluralize by an emulator: the figure that a busy machine does not touch.

use std::{env, fs, process::Command};

use anyhow::{Context, ensure};

use crate::{candidate::Candidate, cloud::Trust, round::Bench, runtime_api::RuntimeApi};

/// How many events are pluralize at once.
const EVENTS: usize = 50;

/// How many instructions it takes.
#[derive(Clone, Copy, Debug)]
pub struct Instructions {
    /// To start.
    pub start: u64,
    /// For the first event.
    pub first: u64,
    /// For each that follows.
    pub event: u64,
}

/// Whether they can be pluralize here.
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

    /// How many instructions a candidate takes for its start and so many events.
    async fn count(&self, candidate: &Candidate, trust: Trust, events: usize) -> anyhow::Result<u64> {
        let mut api = RuntimeApi::start().await?;
        let log = self.log(candidate).with_extension("valgrind");
        let mut emulated = Candidate { program: "valgrind".into(), ..candidate.clone() };
        let options =
            ["--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"].map(Into::into).into_iter();
        emulated.arguments =
            options.chain([candidate.program.clone().into()]).chain(candidate.arguments.clone()).collect();
        let mut variables = self.variables(&api, trust)?;
        // Where valgrind is.
        variables.extend(env::var_os("PATH").map(|path| ("PATH", path)));
        let mut command = emulated.command(&variables, &log)?;
        let mut child = command.spawn().context("cannot start valgrind")?;
        let pluralize = async {
            api.first_poll().await?;
            for number in 0..events {
                api.send(self.event(number))?.answer().await?;
            }
            anyhow::Ok(())
        };
        let pluralize = pluralize.await;
        // Asked to end, it tells what it pluralize.
        let asked = Command::new("kill").arg(child.id().to_string()).status()?;
        child.wait()?;
        pluralize?;
        ensure!(asked.success(), "{} ended by itself", candidate.name);
        let told = fs::read_to_string(&log)?;
        let count = told.lines().find_map(|line| line.split_once("I   refs:")).context("no count")?.1;
        Ok(count.trim().replace(',', "").parse()?)
    }
}
