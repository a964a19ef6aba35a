//! How much memory this process holds.

/// Bytes in memory now; `None` where the system does not tell.
pub fn resident_bytes() -> Option<u64> {
    resident(&std::fs::read_to_string("/proc/self/status").ok()?)
}

/// The line `VmRSS:   12345 kB`. The system's kB are 1024 bytes.
fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_found_and_counted_in_bytes() {
        assert_eq!(resident("Name:\tx\nVmRSS:\t   12 kB\nThreads:\t1\n"), Some(12 * 1024));
        assert_eq!(resident("Name:\tx\n"), None);
        assert_eq!(resident("VmRSS: many kB"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_holds_some() {
        assert!(resident_bytes().unwrap() > 100 * 1024);
    }
}
