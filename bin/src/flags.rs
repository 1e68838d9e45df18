//! How the programs read their command lines: `-name value`, `-name=value`, `--name value` and `--name=value` alike.

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

use clap::{Parser, builder::BoolishValueParser, error::ErrorKind};

/// Flags of `sds-server`. What is not given here or in the environment may come from the config file.
#[derive(Clone, Debug, Default, Parser)]
#[command(
    name = "sds-server",
    version,
    about = "One Sider server: HTTP API and Raft member.",
    after_help = "Flags may be written with one dash or two. Each may also be set by the environment variable shown, \
                  or in the config file; the command line comes first, then the environment, then the file.",
    max_term_width = 110
)]
pub struct ServerFlags {
    /// Address of the HTTP API, or unix:// and the path of a socket [default: 127.0.0.1:8500].
    #[arg(long, env = "SIDER_HTTP", value_name = "HOST:PORT")]
    pub http: Option<String>,
    /// This server's id in the cluster [default: the host's name].
    #[arg(long, env = "SIDER_RAFT_ID", value_name = "ID")]
    pub raft_id: Option<String>,
    /// Address of the Raft transport [default: 127.0.0.1:8501].
    #[arg(long, env = "SIDER_RAFT_BIND", value_name = "HOST:PORT")]
    pub raft_bind: Option<String>,
    /// Address under which the others reach the Raft transport [default: the one that is bound; for a wildcard this
    /// host's own].
    #[arg(long, env = "SIDER_RAFT_ADVERTISE", value_name = "HOST:PORT")]
    pub raft_advertise: Option<String>,
    /// Data directory [default: data/ and the id].
    #[arg(long, env = "SIDER_RAFT_DIR", value_name = "DIR")]
    pub raft_dir: Option<PathBuf>,
    /// Start a new cluster, of all peers of the config file or of this server alone; never with data that is there
    /// [default: true without -join and peers, else false].
    #[arg(
        long,
        env = "SIDER_RAFT_BOOTSTRAP",
        value_name = "BOOL",
        num_args = 0..=1,
        default_missing_value = "true",
        value_parser = BoolishValueParser::new()
    )]
    pub raft_bootstrap: Option<bool>,
    /// HTTP addresses of servers to join through, separated by commas.
    #[arg(long, env = "SIDER_JOIN", value_name = "HOST:PORT,...", value_delimiter = ',')]
    pub join: Vec<String>,
    /// etcd v3 API; not built in yet, so only `off` is accepted.
    #[arg(long, env = "SIDER_GRPC", value_name = "off")]
    pub grpc: Option<String>,
    /// DNS; not built in yet, so only `off` is accepted.
    #[arg(long, env = "SIDER_DNS", value_name = "off")]
    pub dns: Option<String>,
    /// Keep everything in memory, nothing on disk.
    #[arg(
        long,
        env = "SIDER_DEV",
        value_name = "BOOL",
        num_args = 0..=1,
        default_missing_value = "true",
        value_parser = BoolishValueParser::new()
    )]
    pub dev: Option<bool>,
    /// Config file, or a folder of them: JSON, HCL, YAML or TOML by its ending. May be given several times; what a later one
    /// sets has precedence. One file serves all servers of a cluster.
    #[arg(
        long,
        env = "SIDER_CONFIG",
        value_name = "PATH",
        aliases = ["config-file", "config-dir"]
    )]
    pub config: Vec<PathBuf>,
    /// Address of the HTTP API with TLS; needs -tls-cert and -tls-key [default: none].
    #[arg(long, env = "SIDER_HTTPS", value_name = "HOST:PORT")]
    pub https: Option<String>,
    /// Certificate of the HTTP API, in PEM, with those that lead to its authority.
    #[arg(long, env = "SIDER_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<String>,
    /// Private key of that certificate, in PEM.
    #[arg(long, env = "SIDER_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<String>,
    /// Authorities of clients' certificates, in PEM.
    #[arg(long, env = "SIDER_TLS_CA", value_name = "FILE")]
    pub tls_ca: Option<String>,
    /// Refuse clients without a certificate of those authorities [default: false].
    #[arg(
        long,
        env = "SIDER_TLS_VERIFY",
        value_name = "BOOL",
        num_args = 0..=1,
        default_missing_value = "true",
        value_parser = BoolishValueParser::new()
    )]
    pub tls_verify: Option<bool>,
    /// What is logged: error, warn, info, debug, trace, off, or directives like info,sider_core=debug
    /// [default: info].
    #[arg(long, env = "SIDER_LOG_LEVEL", value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// How it is logged: text or json [default: text].
    #[arg(long, env = "SIDER_LOG_FORMAT", value_name = "FORMAT")]
    pub log_format: Option<String>,
    /// Name of the datacenter [default: dc1].
    #[arg(long, env = "SIDER_DATACENTER", value_name = "NAME")]
    pub datacenter: Option<String>,
    /// Name of the node, shared by all servers, that instances registered through the servers' agent API belong to
    /// [default: sider].
    #[arg(long, env = "SIDER_NODE", value_name = "NAME")]
    pub node: Option<String>,
}

/// Gives flags in the Go style (`-raft-id`) the two dashes of the GNU style. Short flags of one letter and everything
/// after `--` stay as they are.
pub fn normalize(args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut verbatim = false;
    let mut normal = Vec::new();
    for (position, arg) in args.into_iter().enumerate() {
        verbatim |= arg == "--";
        let is_go_style = arg.to_str().is_some_and(|arg| {
            let name = arg.strip_prefix('-').unwrap_or_default();
            name.len() > 1 && name.starts_with(|first: char| first.is_ascii_alphabetic())
        });
        // The first argument is the program's own name.
        if position > 0 && !verbatim && is_go_style {
            let mut long = OsString::from("-");
            long.push(&arg);
            normal.push(long);
        } else {
            normal.push(arg);
        }
    }
    normal
}

/// Reads a program's command line and environment. Help and version are printed here; an error is one line.
///
/// # Errors
/// The exit code with which the program should end: success after help and version, 2 for a bad flag.
pub fn parse<T: Parser>(args: impl IntoIterator<Item = OsString>) -> Result<T, ExitCode> {
    let error = match T::try_parse_from(normalize(args)) {
        Ok(flags) => return Ok(flags),
        Err(error) => error,
    };
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        // Nobody is left to be told when standard output is closed.
        let _ = error.print();
        return Err(ExitCode::SUCCESS);
    }
    let program = T::command().get_name().to_owned();
    eprintln!(
        "{program}: {} (see {program} -help)",
        one_line(&error.to_string())
    );
    Err(ExitCode::from(2))
}

/// The first paragraph of one of clap's errors, without its heading: the rest is usage and hints.
fn one_line(error: &str) -> String {
    let lines = error.lines().take_while(|line| !line.trim().is_empty());
    let line = lines.map(str::trim).collect::<Vec<_>>().join(" ");
    line.strip_prefix("error: ").unwrap_or(&line).to_owned()
}

/// This host's name, the default of ids and node names; `localhost` when it has none that is text.
pub fn host_name() -> String {
    let name = gethostname::gethostname().into_string().unwrap_or_default();
    if name.is_empty() {
        "localhost".to_owned()
    } else {
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(line: &str) -> Result<ServerFlags, String> {
        let args = std::iter::once("sds-server").chain(line.split_whitespace());
        ServerFlags::try_parse_from(normalize(args.map(OsString::from)))
            .map_err(|error| one_line(&error.to_string()))
    }

    #[test]
    fn both_styles_are_understood() {
        for line in [
            "-http :8500 -raft-id node1 -raft-bootstrap true",
            "--http :8500 --raft-id node1 --raft-bootstrap true",
            "-http=:8500 --raft-id=node1 -raft-bootstrap=true",
            "-raft-bootstrap -http :8500 -raft-id node1",
            "-http :8500 -raft-id node1 -raft-bootstrap",
        ] {
            let flags = flags(line).unwrap();
            assert_eq!(flags.http.as_deref(), Some(":8500"), "{line}");
            assert_eq!(flags.raft_id.as_deref(), Some("node1"), "{line}");
            assert_eq!(flags.raft_bootstrap, Some(true), "{line}");
        }
        assert_eq!(
            flags("-raft-bootstrap=false").unwrap().raft_bootstrap,
            Some(false)
        );
        assert_eq!(flags("-dev").unwrap().dev, Some(true));
        assert_eq!(flags("").unwrap().dev, None);
        assert_eq!(flags("-join a:1,b:2").unwrap().join, ["a:1", "b:2"]);
    }

    #[test]
    fn short_flags_and_values_stay_as_they_are() {
        let args = ["-raft-id", "-h", "--http", "-", "-1", "--", "-raw"].map(OsString::from);
        let normal = normalize(args);
        assert_eq!(normal, ["-raft-id", "-h", "--http", "-", "-1", "--", "-raw"]);
        let args = ["program", "-raft-id", "x"].map(OsString::from);
        assert_eq!(normalize(args), ["program", "--raft-id", "x"]);
    }

    #[test]
    fn bad_flags_are_named_in_one_line() {
        for (line, named) in [
            ("-raft-idd x", "--raft-idd"),
            ("-raft-bootstrap maybe", "--raft-bootstrap"),
            ("-http", "--http"),
            ("stray", "stray"),
        ] {
            let error = flags(line).unwrap_err();
            assert!(error.contains(named), "{error}");
            assert_eq!(error.lines().count(), 1, "{error}");
            assert!(!error.starts_with("error"), "{error}");
        }
    }

    #[test]
    fn this_host_has_a_name() {
        assert!(!host_name().is_empty());
    }
}
