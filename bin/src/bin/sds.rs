//! The command line: `sds -help` lists what it can do.

use std::process::ExitCode;

fn main() -> ExitCode {
    sider::cli::main(std::env::args_os().collect())
}
