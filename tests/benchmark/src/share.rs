//! A function's share of a processor, as Lambda gives it by memory size.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process, thread,
    time::Duration,
};

use anyhow::Context;

/// With so many MB a function has a processor of its own (AWS Lambda's developer guide).
const MEMORY_OF_A_PROCESSOR: u64 = 1769;

/// How often the share is counted anew, in microseconds. Lambda does not tell; this is what was seen there.
const PERIOD: u64 = 20_000;

/// A control group that holds processes to a share of a processor. Removed when dropped, after its processes ended.
#[derive(Debug)]
pub struct Share(PathBuf);

impl Share {
    /// The share that a function with so many MB has.
    ///
    /// # Errors
    ///
    /// This machine has no control groups, or does not let us make one.
    pub fn of_memory(megabytes: u64) -> anyhow::Result<Self> {
        let quota = (PERIOD * megabytes / MEMORY_OF_A_PROCESSOR).min(PERIOD);
        let root = Path::new("/sys/fs/cgroup");
        let is_second_version = root.join("cgroup.controllers").exists();
        let parent = if is_second_version { root.to_owned() } else { root.join("cpu") };
        let share = Self(parent.join(format!("tableau-fanout-benchmark-{}-{megabytes}", process::id())));
        let limit = || {
            fs::create_dir(&share.0)?;
            if is_second_version {
                fs::write(share.0.join("cpu.max"), format!("{quota} {PERIOD}"))
            } else {
                fs::write(share.0.join("cpu.cfs_period_us"), PERIOD.to_string())?;
                fs::write(share.0.join("cpu.cfs_quota_us"), quota.to_string())
            }
        };
        limit().context("no control group for a share of a processor can be made here")?;
        Ok(share)
    }

    /// Holds a process to the share, with all its threads.
    ///
    /// # Errors
    ///
    /// It has ended.
    pub fn hold(&self, process: u32) -> io::Result<()> {
        fs::write(self.0.join("cgroup.procs"), process.to_string())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        // A process that was just ended may still be counted.
        for _ in 0..50 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}
