//! One memory budget per process, shared by the state and the queues of all jobs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::{Error, ErrorKind, Result};

/// A bound on bytes. Over `PRESSURE` of it sources slow down; beyond it the operator that asked fails.
#[derive(Debug)]
pub struct MemoryBudget {
    limit: AtomicUsize,
    used: AtomicUsize,
}

/// What anybody may hold without asking.
pub const LITTLE: usize = 4 << 20;
/// One part of so many of the budget is much for one writer.
const LARGE_PART: usize = 8;
/// The share of the budget, in percent, from which sources wait, and from which they wait longer.
const PRESSURE: usize = 85;
const NEARLY_FULL: usize = 95;

impl MemoryBudget {
    /// A budget of `limit` bytes.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(MemoryBudget { limit: AtomicUsize::new(limit), used: AtomicUsize::new(0) })
    }

    /// The bound in bytes.
    pub fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    /// Changes the bound; what is used already stays.
    pub fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// Bytes used now.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Takes `bytes`, whatever is left. Gives what is used then.
    pub fn take(&self, bytes: usize) -> usize {
        self.used.fetch_add(bytes, Ordering::Relaxed) + bytes
    }

    /// Takes `bytes`, if there is room for them.
    pub fn try_take(&self, bytes: usize) -> bool {
        let fits = |used: usize| used.checked_add(bytes).filter(|all| *all <= self.limit());
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
    }

    /// Gives back what was taken.
    pub fn give_back(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Whether sources should wait.
    pub fn pressed(&self) -> bool {
        self.used() >= self.limit() / 100 * PRESSURE
    }

    /// Whether sources should wait until what is on its way has arrived.
    pub fn nearly_full(&self) -> bool {
        self.used() >= self.limit() / 100 * NEARLY_FULL
    }

    /// Holds `bytes` of what is on its way from one place to another, whatever is left, until what is given is dropped.
    pub fn hold(self: &Arc<Self>, bytes: usize) -> Held {
        self.take(bytes);
        Held { budget: self.clone(), bytes }
    }

    /// An account of this budget for `owner`, an operator's name as users know it.
    pub fn account(self: &Arc<Self>, owner: impl Into<String>) -> MemoryAccount {
        MemoryAccount { owner: owner.into(), held: self.hold(0) }
    }
}

/// Bytes that are given back when this is dropped.
#[derive(Debug)]
pub struct Held {
    budget: Arc<MemoryBudget>,
    bytes: usize,
}

impl Held {
    /// The budget of which they are.
    pub fn budget(&self) -> &MemoryBudget {
        &self.budget
    }

    /// Holds `bytes` instead, whatever is left. Gives what is used of the budget then.
    fn set(&mut self, bytes: usize) -> usize {
        let used = match bytes > self.bytes {
            true => self.budget.take(bytes - self.bytes),
            false => {
                self.budget.give_back(self.bytes - bytes);
                self.budget.used()
            }
        };
        self.bytes = bytes;
        used
    }

    /// Holds `bytes` instead, if there is room for them.
    pub fn try_set(&mut self, bytes: usize) -> bool {
        if bytes > self.bytes {
            if !self.budget.try_take(bytes - self.bytes) {
                return false;
            }
            self.bytes = bytes;
        } else {
            self.set(bytes);
        }
        true
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.budget.give_back(self.bytes);
    }
}

/// What one operator holds; given back when dropped.
#[derive(Debug)]
pub struct MemoryAccount {
    owner: String,
    held: Held,
}

impl MemoryAccount {
    /// Bytes held.
    pub fn held(&self) -> usize {
        self.held.bytes
    }

    /// Whether memory is short.
    pub fn is_pressed(&self) -> bool {
        self.held.budget.pressed()
    }

    /// Whether one who could give some of its `bytes` back should: they are much, and memory is short or they are a large part
    /// of all there is.
    pub fn should_shrink(&self, bytes: usize) -> bool {
        bytes > LITTLE && (self.is_short_with(bytes) || bytes > self.held.budget.limit() / LARGE_PART)
    }

    /// Whether memory is short once `bytes` are held.
    pub fn is_short_with(&self, bytes: usize) -> bool {
        let others = self.held.budget.used().saturating_sub(self.held());
        others.saturating_add(bytes) >= self.held.budget.limit() / 100 * PRESSURE
    }

    /// Sets what is held to `bytes`, whatever is left: for what goes by itself soon, while sources wait.
    pub fn set(&mut self, bytes: usize) {
        self.held.set(bytes);
    }

    /// Sets what is held to `bytes`, and asks for it only where that is much: the first few bytes of many who need little
    /// are not what a budget is used up by.
    ///
    /// Errors as [`MemoryAccount::resize`].
    pub fn resize_large(&mut self, bytes: usize) -> Result<()> {
        if bytes > LITTLE {
            return self.resize(bytes);
        }
        self.set(bytes);
        Ok(())
    }

    /// Sets what is held to `bytes`.
    ///
    /// Errors with `Exhausted`, naming the operator and the setting, when the budget has no room.
    pub fn resize(&mut self, bytes: usize) -> Result<()> {
        let grows = bytes > self.held();
        let (used, limit) = (self.held.set(bytes), self.held.budget.limit());
        if !grows || used <= limit {
            return Ok(());
        }
        let (bytes, limit) = (human_bytes(bytes), human_bytes(limit));
        let message = format!("out of memory: {} holds {bytes} and the budget of {limit} is used up", self.owner);
        Err(Error::new(ErrorKind::Exhausted, message).with_hint(
            "Raise it with SET memory_limit = '8GB', bound the state with a window over event time, \
             or group by fewer keys.",
        ))
    }
}

/// Bytes as people read them: `1.5 MB`, in powers of 1000.
pub fn human_bytes(bytes: usize) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// Reads bytes: `512MB`, `4 GiB`, `1.5k`, `1_000_000`. Powers of 1000 unless the unit has an `i`; at least one.
pub fn parse_bytes(text: &str) -> Option<usize> {
    let text = text.trim().replace('_', "");
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..digits].parse().ok()?;
    let scale: f64 = match text[digits..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "kb" | "k" => 1e3,
        "mb" | "m" => 1e6,
        "gb" | "g" => 1e9,
        "tb" | "t" => 1e12,
        "kib" => 1024.0,
        "mib" => 1024.0 * 1024.0,
        "gib" => 1024.0 * 1024.0 * 1024.0,
        "tib" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        _ => return None,
    };
    Some(number * scale).filter(|bytes| *bytes >= 1.0).map(|bytes| bytes as usize)
}

/// The share of the machine's memory that a budget has when nobody says otherwise; the rest is for what is not counted, the
/// page cache and others.
const SHARE_PERCENT: u64 = 60;
/// The memory of a machine that does not tell it.
const UNKNOWN_MACHINE: u64 = 2 << 30;

/// The bytes of a budget when nobody says otherwise.
pub fn default_limit() -> usize {
    let machine = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| meminfo_total(&text));
    let total = [machine, container_limit()].into_iter().flatten().min().unwrap_or(UNKNOWN_MACHINE);
    usize::try_from(total / 100 * SHARE_PERCENT).unwrap_or(usize::MAX)
}

fn meminfo_total(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().trim_end_matches("kB").trim().parse::<u64>().ok().map(|kb| kb * 1024)
}

/// What the control groups of the process leave it, by the kernel's cgroup-v2.rst and cgroup-v1/memory.rst: a group has no more than
/// those that it lies in.
fn container_limit() -> Option<u64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    limit_files(&groups).into_iter().filter_map(|path| std::fs::read_to_string(path).ok()?.trim().parse().ok()).min()
}

/// The files that may hold a limit for a process of `groups`, which is what `/proc/self/cgroup` has.
fn limit_files(groups: &str) -> Vec<std::path::PathBuf> {
    let mut files = vec![];
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (parts.next(), parts.next()) else { continue };
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            v1 if v1.split(',').any(|c| c == "memory") => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            _ => continue,
        };
        let group = std::path::Path::new(group.trim_start_matches('/'));
        // Within a container the group may be named as it is outside of it: then only the root is there.
        files.extend(group.ancestors().map(|g| std::path::Path::new(root).join(g).join(file)));
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let read = ["4GB", "4GiB", "1.5 k", "100", "1_000"].map(parse_bytes);
        assert_eq!(read, [Some(4_000_000_000), Some(4 << 30), Some(1500), Some(100), Some(1000)]);
        for wrong in ["", "GB", "-1GB", "4XB", "0", "nan"] {
            assert_eq!(parse_bytes(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_machine_and_its_groups_tell_their_memory() {
        assert_eq!(meminfo_total("MemTotal:       16384 kB\nMemFree: 1 kB\n"), Some(16 << 20));
        assert!(default_limit() > 0);
        let files = |text: &str| limit_files(text).iter().map(|p| p.display().to_string()).collect::<Vec<_>>();
        let v2 = ["/sys/fs/cgroup/a/b/memory.max", "/sys/fs/cgroup/a/memory.max", "/sys/fs/cgroup/memory.max"];
        assert_eq!(files("0::/a/b\n"), v2);
        assert_eq!(files("0::/\n"), [v2[2]]);
        let v1 = "5:cpu,cpuacct:/x\n4:memory:/x\n";
        let memory = ["/sys/fs/cgroup/memory/x/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
        assert_eq!(files(v1), memory);
    }

    #[test]
    fn a_budget_gives_what_it_has() {
        let budget = MemoryBudget::new(1000);
        assert!(budget.try_take(600) && !budget.try_take(500) && budget.try_take(400));
        budget.give_back(1000);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn an_account_gives_back_what_it_held() {
        let budget = MemoryBudget::new(1000);
        let mut a = budget.account("aggregate 1");
        a.resize(900).expect("fits");
        assert!(budget.pressed());
        let held = budget.hold(50);
        assert_eq!(budget.used(), 950);
        drop(held);
        let e = budget.account("aggregate 2").resize(200).expect_err("does not fit");
        assert_eq!(e.kind(), ErrorKind::Exhausted);
        assert!(e.message().contains("aggregate 2"), "{e}");
        assert_eq!(budget.used(), 900);
        a.resize(100).expect("shrinks");
        drop(a);
        assert_eq!(budget.used(), 0);
    }
}
