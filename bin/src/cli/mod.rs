//! The command line `sds`: a client of any server's HTTP API, the local demo cluster, and the load generator.
//!
//! Reading order: this page (what can be said), [`client`] (how a server is asked), [`output`] (tables for people, JSON
//! for scripts), then a file for each group of commands.

mod catalog;
mod client;
mod cluster;
mod debug;
mod demo;
mod output;
mod snapshot;
mod watch;

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};

pub use client::Client;

use crate::bench::BenchArgs;

/// Talks to Sider servers.
#[derive(Debug, Parser)]
#[command(name = "sds", version, about, max_term_width = 110)]
pub struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

/// What every command understands.
#[derive(Clone, Debug, Args)]
pub struct Common {
    /// HTTP addresses of servers, separated by commas; the first that answers is used.
    #[arg(
        long,
        global = true,
        env = "SIDER_SERVER",
        default_value = "127.0.0.1:8500",
        value_delimiter = ','
    )]
    pub server: Vec<String>,
    /// Print JSON instead of a table.
    #[arg(long, global = true)]
    pub json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List services with their tags and how many instances are healthy.
    Services(catalog::ServicesArgs),
    /// Show the instances of a service with their checks.
    Health(catalog::HealthArgs),
    /// Print a service or keys each time that they change, until Ctrl-C.
    Watch(watch::WatchArgs),
    /// Register an instance.
    Register(catalog::RegisterArgs),
    /// Deregister an instance.
    Deregister(catalog::DeregisterArgs),
    /// List the servers of the cluster.
    Members,
    /// Add a server to the cluster.
    Join(cluster::JoinArgs),
    /// Remove a server from the cluster.
    Remove(cluster::RemoveArgs),
    /// Hand leadership to another server.
    Transfer(cluster::TransferArgs),
    /// Save the whole state to a file, restore it, or look at a file.
    Snapshot(snapshot::SnapshotArgs),
    /// Look at what a stopped server left on its disk.
    Debug(debug::DebugArgs),
    /// Show one server's Raft state.
    Stats,
    /// Print the version of this program and of the server.
    Version,
    /// Run three servers and an agent in the foreground, until Ctrl-C.
    Demo(DemoArgs),
    /// Drive a server with load and print rate, percentiles and errors.
    Bench(BenchArgs),
}

/// Flags of `sds demo`.
#[derive(Clone, Debug, Args)]
pub struct DemoArgs {
    /// Folder for the servers' data; a fresh temporary one, removed at the end, if not given.
    #[arg(long)]
    pub data_dir: Option<PathBuf>,
    /// The agent's config file; a demonstration service if not given.
    #[arg(long)]
    pub agent_config: Option<PathBuf>,
}

/// Parses the arguments, runs the command, and prints an error in one line.
pub fn main(args: Vec<std::ffi::OsString>) -> ExitCode {
    let cli: Cli = match crate::flags::parse(args) {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return failed(&format!("cannot start: {error}")),
    };
    match runtime.block_on(run(cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error.to_string()),
    }
}

fn failed(error: &str) -> ExitCode {
    eprintln!("sds: {error}");
    ExitCode::FAILURE
}

/// Why a command failed, in one line.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// No server answered.
    #[error("no server answers at {addresses}: {reason}")]
    Unreachable {
        /// All that were tried.
        addresses: String,
        /// Why the last one did not.
        reason: String,
    },
    /// The server refused.
    #[error("{address} answered {status}: {message}")]
    Refused {
        /// Who.
        address: String,
        /// Status code.
        status: u16,
        /// The server's own words.
        message: String,
    },
    /// The server's answer is not what its API promises.
    #[error("{address} answered something unexpected: {reason}")]
    Unexpected {
        /// Who.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Anything else, in its own words.
    #[error("{0}")]
    Other(String),
}

async fn run(cli: Cli) -> Result<(), CliError> {
    let client = Client::new(&cli.common.server);
    let json = cli.common.json;
    match cli.command {
        Command::Services(args) => catalog::services(&client, &args, json).await,
        Command::Health(args) => catalog::health(&client, &args, json).await,
        Command::Watch(args) => watch::watch(&cli.common.server, &args, json).await,
        Command::Register(args) => catalog::register(&client, &args, json).await,
        Command::Deregister(args) => catalog::deregister(&client, &args, json).await,
        Command::Members => cluster::members(&client, json).await,
        Command::Join(args) => cluster::join(&client, &args, json).await,
        Command::Remove(args) => cluster::remove(&client, &args, json).await,
        Command::Transfer(args) => cluster::transfer(&client, &args, json).await,
        Command::Snapshot(args) => snapshot::run(&client, &args, json).await,
        Command::Debug(args) => debug::run(&args).await,
        Command::Stats => cluster::stats(&client, json).await,
        Command::Version => cluster::version(&client, json).await,
        Command::Demo(args) => demo::run(&args).await,
        Command::Bench(args) => crate::bench::run(&args, &cli.common).await,
    }
}
