//! Named steps at which a test ends this process or makes the disk fail. A build without the feature `failpoints` has none.

/// Reads from the environment variable FAILPOINTS what is to happen at which steps, and says in the log that this can be
/// done at all. To be kept as long as the server runs.
#[cfg(feature = "failpoints")]
pub(crate) fn begin() -> fail::FailScenario<'static> {
    tracing::warn!("built with failpoints: for tests alone");
    fail::FailScenario::setup()
}

/// What a test wants; nothing here.
#[cfg(all(feature = "node", not(feature = "failpoints")))]
pub(crate) struct Nothing;

/// There is nothing to read.
#[cfg(all(feature = "node", not(feature = "failpoints")))]
pub(crate) const fn begin() -> Nothing {
    Nothing
}

/// Passes a step. A test may have the process end here, as by a crash.
#[inline]
pub(crate) fn step(name: &'static str) {
    #[cfg(feature = "failpoints")]
    fail::eval::<(), _>(name, |_| std::process::abort());
    let _ = name;
}

/// Whether a test wants this to go wrong.
#[cfg(feature = "node")]
#[inline]
pub(crate) fn is_wanted(name: &'static str) -> bool {
    #[cfg(feature = "failpoints")]
    return fail::eval(name, |_| ()).is_some();
    #[cfg(not(feature = "failpoints"))]
    {
        let _ = name;
        false
    }
}
