//! Counts what the process allocates.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicIsize, Ordering};

static NOW: AtomicIsize = AtomicIsize::new(0);
static PEAK: AtomicIsize = AtomicIsize::new(0);

struct Counting;

// SAFETY: every call goes to the system's allocator unchanged; the counters are atomics that allocate nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size() as isize, Ordering::Relaxed) + layout.size() as isize;
        PEAK.fetch_max(now, Ordering::Relaxed);
        // SAFETY: as for the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size() as isize, Ordering::Relaxed);
        // SAFETY: as for the caller.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// The most bytes that were allocated at one time during `work`, beyond those before it.
pub(crate) fn peak_of<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = NOW.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let result = work();
    let peak = PEAK.load(Ordering::Relaxed) - before;
    (result, usize::try_from(peak).unwrap_or(0))
}

/// Memory allowed for files of `size` bytes: their f32 form, JSON's tree and a tokenizer's tables are each a small multiple; the constant
/// is for buffers of fixed size, thread stacks aside.
pub(crate) fn allowance(size: usize) -> usize {
    64 * size + (4 << 20)
}

#[test]
fn the_peak_is_seen() {
    let _alone = super::alone();
    let (length, peak) = peak_of(|| {
        drop(vec![1u8; 50_000_000]);
        std::thread::spawn(|| vec![1u8; 80_000_000].len()).join().unwrap()
    });
    assert_eq!(length, 80_000_000);
    assert!((80_000_000..90_000_000).contains(&peak), "{peak}");
}
