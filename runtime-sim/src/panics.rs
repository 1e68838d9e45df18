//! A panic anywhere in a simulation fails the run, also one that the code under test would contain.

use std::{cell::RefCell, panic::PanicHookInfo, sync::Once, task::Waker};

thread_local! {
    /// Of the run on this thread; `None` on threads that run no simulation.
    static WATCH: RefCell<Option<Watch>> = const { RefCell::new(None) };
}

#[derive(Default)]
struct Watch {
    backtraces: bool,
    first: Option<String>,
    supervisor: Option<Waker>,
}

/// Starts watching this thread, printing the first panic's backtrace if asked to (and if `RUST_BACKTRACE` allows it).
/// Panics of other threads are reported as before.
pub(crate) fn watch(backtraces: bool) {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !note(info) {
                previous(info);
            }
        }));
    });
    WATCH.with_borrow_mut(|watch| {
        *watch = Some(Watch {
            backtraces,
            ..Watch::default()
        })
    });
}

/// Stops watching this thread and gives the first panic, with its place.
pub(crate) fn unwatch() -> Option<String> {
    WATCH.with_borrow_mut(Option::take).and_then(|watch| watch.first)
}

/// The first panic so far; `supervisor` is woken when there is one.
pub(crate) fn first(supervisor: &Waker) -> Option<String> {
    WATCH.with_borrow_mut(|watch| {
        let watch = watch.as_mut()?;
        watch.supervisor = Some(supervisor.clone());
        watch.first.clone()
    })
}

/// Takes note of a panic; false if this thread runs no simulation.
fn note(info: &PanicHookInfo<'_>) -> bool {
    let supervisor = WATCH.with(|watch| {
        // A panic while the watch is borrowed can't be noted; it is printed.
        let mut watch = watch.try_borrow_mut().ok()?;
        let watch = watch.as_mut()?;
        if watch.backtraces && watch.first.is_none() {
            eprintln!("{info}\n{}", std::backtrace::Backtrace::capture());
        }
        watch.first.get_or_insert_with(|| match info.location() {
            Some(place) => format!("{} ({place})", message(info.payload())),
            None => message(info.payload()),
        });
        Some(watch.supervisor.take())
    });
    if let Some(Some(supervisor)) = &supervisor {
        supervisor.wake_by_ref();
    }
    supervisor.is_some()
}

/// The message of a panic.
pub(crate) fn message(payload: &(dyn std::any::Any + Send)) -> String {
    if let Some(text) = payload.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else {
        "a panic without a message".to_owned()
    }
}
