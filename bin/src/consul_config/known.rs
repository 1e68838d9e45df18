//! Keys of Consul's config (of its version 1.22, and older ones that it still takes) which mean nothing here. Whoever has one
//! is warned, once; a key that is not even among these is an error, as it is Consul's.

use serde_json::{Map, Value};

/// Keys at the top.
pub(super) const IGNORED: [&str; 144] = [
    "acl",
    "acl_agent_master_token",
    "acl_agent_token",
    "acl_datacenter",
    "acl_default_policy",
    "acl_disabled_ttl",
    "acl_down_policy",
    "acl_enable_key_list_policy",
    "acl_master_token",
    "acl_replication_token",
    "acl_token",
    "acl_ttl",
    "advertise_addr_ipv4",
    "advertise_addr_ipv6",
    "advertise_addr_wan",
    "advertise_addr_wan_ipv4",
    "advertise_addr_wan_ipv6",
    "advertise_reconnect_timeout",
    "ae_interval",
    "allow_write_http_from",
    "alt_domain",
    "audit",
    "auto_config",
    "auto_encrypt",
    "auto_reload_config",
    "build_date",
    "ca_path",
    "cache",
    "check_deregister_interval_min",
    "check_output_max_size",
    "check_reap_interval",
    "check_update_interval",
    "cloud",
    "config_entries",
    "connect",
    "consul",
    "default_intention_policy",
    "default_query_time",
    "dev_mode",
    "disable_anonymous_signature",
    "disable_checkpoint",
    "disable_coordinates",
    "disable_host_node_id",
    "disable_http_unprintable_char_filter",
    "disable_keyring_file",
    "disable_kv_key_validation",
    "disable_remote_exec",
    "disable_update_check",
    "discard_check_output",
    "discovery_max_stale",
    "dns_config",
    "domain",
    "enable_acl_replication",
    "enable_agent_tls_for_checks",
    "enable_central_service_config",
    "enable_debug",
    "enable_local_script_checks",
    "enable_syslog",
    "encrypt",
    "encrypt_verify_incoming",
    "encrypt_verify_outgoing",
    "experiments",
    "gossip_lan",
    "gossip_wan",
    "http_api_response_headers",
    "http_config",
    "leave_on_terminate",
    "license_path",
    "license_poll_base_time",
    "license_poll_max_time",
    "license_update_base_time",
    "license_update_max_time",
    "locality",
    "log_file",
    "log_rotate_bytes",
    "log_rotate_duration",
    "log_rotate_max_files",
    "max_query_time",
    "non_voting_server",
    "partition",
    "peering",
    "pid_file",
    "primary_datacenter",
    "primary_gateways",
    "primary_gateways_interval",
    "protocol",
    "raft_boltdb",
    "raft_logstore",
    "raft_prevote_disabled",
    "raft_protocol",
    "read_replica",
    "reconnect_timeout",
    "reconnect_timeout_wan",
    "recursors",
    "rejoin_after_leave",
    "reporting",
    "request_limits",
    "retry_interval",
    "retry_interval_wan",
    "retry_join_wan",
    "retry_max",
    "retry_max_wan",
    "revision",
    "rpc",
    "segment",
    "segment_limit",
    "segment_name_limit",
    "segments",
    "serf_lan",
    "serf_lan_allowed_cidrs",
    "serf_wan",
    "serf_wan_allowed_cidrs",
    "server_name",
    "server_rejoin_age_max",
    "session_ttl_min",
    "skip_leave_on_interrupt",
    "snapshot_agent",
    "start_join_wan",
    "statsd_addr",
    "statsite_addr",
    "statsite_prefix",
    "sync_coordinate_interval_min",
    "sync_coordinate_rate_target",
    "syslog_facility",
    "tagged_addresses",
    "telemetry",
    "tls_cipher_suites",
    "tls_min_version",
    "tls_prefer_server_cipher_suites",
    "translate_wan_addrs",
    "ui",
    "ui_config",
    "ui_content_path",
    "ui_dir",
    "unix_sockets",
    "use_streaming_backend",
    "verify_incoming_rpc",
    "verify_outgoing",
    "verify_server_hostname",
    "version",
    "version_metadata",
    "version_prerelease",
    "watches",
    "xds",
];

/// Keys beneath `addresses`.
const ADDRESSES: [&str; 5] = ["dns", "grpc", "grpc_tls", "http", "https"];

/// Keys beneath `limits`.
const LIMITS: [&str; 10] = [
    "http_max_conns_per_client",
    "https_handshake_timeout",
    "kv_max_value_size",
    "request_limits",
    "rpc_client_timeout",
    "rpc_handshake_timeout",
    "rpc_max_burst",
    "rpc_max_conns_per_client",
    "rpc_rate",
    "txn_max_req_len",
];

/// Keys beneath `performance`.
const PERFORMANCE: [&str; 6] = [
    "enable_xds_load_balancing",
    "grpc_keepalive_interval",
    "grpc_keepalive_timeout",
    "leave_drain_time",
    "raft_multiplier",
    "rpc_hold_timeout",
];

/// Keys beneath `ports`.
const PORTS: [&str; 14] = [
    "dns",
    "expose_max_port",
    "expose_min_port",
    "grpc",
    "grpc_tls",
    "http",
    "https",
    "proxy_max_port",
    "proxy_min_port",
    "serf_lan",
    "serf_wan",
    "server",
    "sidecar_max_port",
    "sidecar_min_port",
];

/// Keys beneath each section of `tls`.
const TLS: [&str; 10] = [
    "ca_file",
    "ca_path",
    "cert_file",
    "key_file",
    "tls_cipher_suites",
    "tls_min_version",
    "use_auto_cert",
    "verify_incoming",
    "verify_outgoing",
    "verify_server_hostname",
];

/// Keys that are of no use: those that mean nothing here, and those that nobody knows.
#[derive(Debug, Default)]
pub(super) struct Useless {
    /// Consul's.
    pub(super) ignored: Vec<String>,
    /// Nobody's.
    pub(super) unknown: Vec<String>,
}

impl Useless {
    /// Takes Consul's keys that mean nothing here out of the top of a file.
    pub(super) fn take_ignored(&mut self, keys: &mut Map<String, Value>) {
        for key in IGNORED {
            match keys.remove(key) {
                None => {}
                // Some of its keys keep others out, others don't.
                Some(Value::Object(section)) if key == "http_config" => {
                    self.ignored
                        .extend(section.keys().map(|name| format!("{key}.{name}")));
                }
                Some(_) => self.ignored.push(key.to_owned()),
            }
        }
    }

    /// What is left of a section, after all that means something was taken out of it.
    pub(super) fn rest_of(&mut self, name: &str, section: &Map<String, Value>) {
        let known: &[&str] = match name {
            "addresses" => &ADDRESSES,
            "autopilot" => &[],
            "limits" => &LIMITS,
            "performance" => &PERFORMANCE,
            "ports" => &PORTS,
            "tls" => &["grpc", "internal_rpc"],
            _ => &TLS,
        };
        for key in section.keys() {
            let path = format!("{name}.{key}");
            match known.contains(&key.as_str()) {
                true => self.ignored.push(path),
                false => self.unknown.push(path),
            }
        }
    }
}
