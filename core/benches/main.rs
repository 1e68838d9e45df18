//! What the steps of a request cost: `cargo bench -p sider-core`, with a word to run those alone that it is part of.
//!
//! The whole server, with disk and network, is measured by `bin/tests/performance`.

mod countdown;
mod registry;
mod requests;

use criterion::Criterion;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    registry::all(&mut criterion);
    requests::all(&mut criterion);
    countdown::all(&mut criterion);
    criterion.final_summary();
}
