//! What the kernel says of a process: processor time and memory.

use std::{fs, path::PathBuf};

/// A process to be looked at.
#[derive(Debug, Clone, Copy)]
pub struct Process(pub u32);

impl Process {
    fn file(self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.0))
    }

    /// Nanoseconds on a processor, of all threads there are.
    pub fn cpu_ns(self) -> u64 {
        let tasks = fs::read_dir(self.file("task")).unwrap();
        tasks
            .filter_map(|task| fs::read_to_string(task.unwrap().path().join("schedstat")).ok())
            .filter_map(|stat| stat.split(' ').next()?.parse::<u64>().ok())
            .sum()
    }

    /// Resident memory now, in KiB.
    pub fn rss_kib(self) -> f64 {
        self.status("VmRSS:")
    }

    /// The most since [`Process::forget_peak`], in KiB.
    pub fn peak_kib(self) -> f64 {
        self.status("VmHWM:")
    }

    /// Begins the peak anew.
    pub fn forget_peak(self) {
        fs::write(self.file("clear_refs"), "5").unwrap();
    }

    fn status(self, key: &str) -> f64 {
        let status = fs::read_to_string(self.file("status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }
}
