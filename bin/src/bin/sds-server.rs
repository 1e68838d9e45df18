//! One registry server: `sds-server -help` lists its flags.

use std::process::ExitCode;

fn main() -> ExitCode {
    sider::server::main(std::env::args_os().collect())
}
