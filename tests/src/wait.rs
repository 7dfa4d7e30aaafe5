//! Waiting for a condition. A deadline here is only how long a hang may last: it is
//! generous, and no test measures time with it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// After this long a thing that was waited for is taken not to come.
pub const DEADLINE: Duration = Duration::from_secs(20);

const POLL: Duration = Duration::from_millis(10);

/// Asks again and again until there is an answer; panics, naming `what`, when there is
/// none after [`DEADLINE`].
pub fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < DEADLINE, "waited in vain for: {what}");
        std::thread::sleep(POLL);
    }
}

/// As [`until`], for a condition.
pub fn until_true(what: &str, mut ask: impl FnMut() -> bool) {
    until(what, || ask().then_some(()));
}

/// Runs `what` while `background` runs beside it. `background` is to end soon after its
/// flag is set, which is when `what` has ended, by a panic too.
pub fn meanwhile<B: Send, W>(
    background: impl FnOnce(&AtomicBool) -> B + Send,
    what: impl FnOnce() -> W,
) -> (B, W) {
    struct SetOnDrop<'f>(&'f AtomicBool);
    impl Drop for SetOnDrop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let flag = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let background = scope.spawn(|| background(&flag));
        let end = SetOnDrop(&flag);
        let done = what();
        drop(end);
        let result = background.join();
        (
            result.unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            done,
        )
    })
}
