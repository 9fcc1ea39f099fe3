/// Token ids that are the same in every run, in the rows that one generator gives one after another.
pub(crate) fn random_ids(len: usize, vocab: usize, state: &mut u64) -> Vec<u32> {
    let mut next = || {
        // Knuth's linear congruential generator; its high bits are good enough for token ids.
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*state >> 33) as usize
    };
    (0..len).map(|_| (next() % vocab) as u32).collect()
}

/// The process's highest resident memory in MiB, where the system tells it.
pub(crate) fn peak_rss_mib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? / 1024)
}
