//! The agent on a service's host: `sds-agent -help` lists its flags.

use std::process::ExitCode;

fn main() -> ExitCode {
    sider::agent::main(std::env::args_os().collect())
}
