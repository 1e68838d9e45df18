//! The proof: the server's own code under simulated failures, and the judges of what it did.
//!
//! Reading order:
//!
//! 1. [`operation`] is what a client can ask; [`keys`], [`catalog_steps`], [`maintenance`], [`prepared`], [`autopilot`],
//!    [`authority`], [`narrowing`], [`own_checks`], [`agent_reads`] and [`cluster_reads`] are parts of it; [`forwarding`] says what of it an
//!    agent sends on; [`probes`] is what servers probe, [`aliases`] what
//!    their checks follow. [`schedule`] is a whole run as a value, with its [`time`] and the
//!    steps at which a [`trap`] snaps; [`generate`] draws one from a seed.
//! 2. [`cluster`] is the servers; [`workload`] the clients, [`streams`] those that read streams, [`saboteur`] the faults,
//!    [`agency`] agents, [`audit`] looks at servers from the inside; [`run`] plays a schedule with them, [`sweep`] many;
//!    [`timeline`] tells a run in plain [`words`], [`page`] draws it, [`shrink`] makes a failing schedule small, [`diff`]
//!    finds where two runs part, [`lease_map`] shows what wrong clocks break. [`stage`] is for tests that are scripts;
//!    [`bugs`] plants bugs to see that they are caught.
//! 3. [`history`] is what is written down of it, by [`recorder`]; [`content`] and [`wire`] are what goes over HTTP.
//! 4. [`model`] is the registry once more, as plainly as possible, with its [`answers`]; [`truth`] lets it carry out the
//!    committed log, and [`matching`] finds out which operation put which entry there.
//! 5. [`invariants`] hold the history against that truth and what is [`promised`], one of them by the search in [`wgl`];
//!    [`sometimes`] counts what must occur for that to prove anything.
//! 6. [`torture`] does the same with real processes.

pub mod time;

pub mod operation;

pub mod keys;

pub mod catalog_steps;

pub mod authority;

pub mod narrowing;

pub mod maintenance;

pub mod own_checks;

pub mod probes;

pub mod aliases;

pub mod agent_reads;

pub mod cluster_reads;

pub mod forwarding;

pub mod schedule;

pub mod trap;

pub mod generate;

pub mod cluster;

pub mod workload;

pub mod streams;

pub mod saboteur;

pub mod agency;

pub mod audit;
pub mod autopilot;
pub mod prepared;

pub mod run;

pub mod stage;

pub mod sweep;

pub mod words;

pub mod timeline;

pub mod page;

pub mod shrink;

pub mod diff;

pub mod lease_map;

pub mod bugs;

pub mod history;

pub mod recorder;

pub mod content;

pub mod wire;

pub mod model;

pub mod answers;

pub mod matching;

pub mod truth;

pub mod wgl;

pub mod promised;

pub mod invariants;

pub mod sometimes;

pub mod torture;

#[cfg(test)]
mod tests {
    #[test]
    fn every_module_has_its_place_in_the_reading_order() {
        let text = include_str!("lib.rs");
        let modules = text
            .lines()
            .filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
        let order: String = text.lines().filter(|line| line.starts_with("//!")).collect();
        for module in modules {
            assert!(order.contains(&format!("[`{module}`]")), "{module} has none");
        }
    }
}
