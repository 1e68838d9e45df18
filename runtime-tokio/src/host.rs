//! What this host and this process look like now, as the operating system tells it. What it does not tell is left out, and
//! said among the errors.

use std::{
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use serde_json::{Map, Value, json};

/// This host, in the form of `/v1/agent/host`. `data` is the folder whose disk is told of.
pub fn describe(data: &Path) -> Value {
    let mut errors = Vec::new();
    let mut part = |what: &str, found: Result<Value, String>| {
        found.unwrap_or_else(|error| {
            errors.push(format!("{what}: {error}"));
            Value::Null
        })
    };
    let memory = part("memory", read("/proc/meminfo").map(|text| memory(&text)));
    let processors = part("processors", read("/proc/cpuinfo").map(|text| processors(&text)));
    let system = part("system", system());
    let disk = part("disk", disk(data));
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    json!({
        "Memory": memory,
        "CPU": processors,
        "Host": system,
        "Disk": disk,
        "CollectionTime": u64::try_from(time.as_nanos()).unwrap_or(u64::MAX),
        "Errors": if errors.is_empty() { Value::Null } else { errors.into() },
    })
}

/// Bytes of memory that this process holds, and bytes of address space that it asked for; `None` where the system does
/// not say.
pub fn memory_of_process() -> Option<(u64, u64)> {
    let text = read("/proc/self/statm").ok()?;
    let mut pages = text.split_whitespace().map_while(|word| word.parse::<u64>().ok());
    let (space, resident) = (pages.next()?, pages.next()?);
    let page = rustix::param::page_size() as u64;
    Some((resident * page, space * page))
}

/// The time as Consul's metrics write it.
pub fn timestamp() -> String {
    let text = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let (day, time) = text.split_once('T').unwrap_or((&text, ""));
    format!("{day} {} +0000 UTC", time.trim_end_matches('Z'))
}

fn read(path: &str) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))
}

/// `Name: 123 kB` for each line, in bytes.
fn memory(text: &str) -> Value {
    let of = |name: &str| {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
        kib.map_or(0, |kib| kib * 1024)
    };
    let (total, free, available) = (of("MemTotal"), of("MemFree"), of("MemAvailable"));
    let (buffers, cached) = (of("Buffers"), of("Cached") + of("SReclaimable"));
    let used = total.saturating_sub(free + buffers + cached);
    json!({
        "total": total,
        "available": available,
        "used": used,
        "usedPercent": percent(used, total),
        "free": free,
        "buffers": buffers,
        "cached": cached,
        "active": of("Active"),
        "inactive": of("Inactive"),
        "slab": of("Slab"),
        "shared": of("Shmem"),
        "swapTotal": of("SwapTotal"),
        "swapFree": of("SwapFree"),
    })
}

fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        return 0.0;
    }
    #[expect(clippy::cast_precision_loss, reason = "a share for people to read")]
    let share = part as f64 * 100.0 / whole as f64;
    share
}

/// A paragraph of `name : value` lines for each processor.
fn processors(text: &str) -> Value {
    let paragraphs = text
        .split("\n\n")
        .filter(|paragraph| !paragraph.trim().is_empty());
    let processors = paragraphs.map(|paragraph| {
        let of = |name: &str| {
            let mut pairs = paragraph.lines().filter_map(|line| line.split_once(':'));
            let found = pairs.find(|(key, _)| key.trim() == name);
            found.map_or("", |(_, value)| value.trim())
        };
        json!({
            "cpu": of("processor").parse::<u64>().unwrap_or_default(),
            "vendorId": of("vendor_id"),
            "family": of("cpu family"),
            "model": of("model"),
            "stepping": of("stepping").parse::<i64>().unwrap_or_default(),
            "physicalId": of("physical id"),
            "coreId": of("core id"),
            "cores": 1,
            "modelName": of("model name"),
            "mhz": of("cpu MHz").parse::<f64>().unwrap_or_default(),
            "flags": of("flags").split_whitespace().collect::<Vec<_>>(),
        })
    });
    Value::Array(processors.collect())
}

fn system() -> Result<Value, String> {
    let name = rustix::system::uname();
    let text = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
    let uptime = read("/proc/uptime")?;
    let uptime = uptime
        .split('.')
        .next()
        .and_then(|seconds| seconds.parse::<u64>().ok());
    let uptime = uptime.ok_or("/proc/uptime: expected seconds")?;
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    let processes = std::fs::read_dir("/proc").map_err(|error| format!("/proc: {error}"))?;
    let processes = processes.flatten().filter(|entry| {
        let name = entry.file_name();
        name.to_str()
            .is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
    });
    let mut release = Map::new();
    // A host without this file has no name for what it runs.
    let release_text = read("/etc/os-release").unwrap_or_default();
    for (key, value) in release_text.lines().filter_map(|line| line.split_once('=')) {
        release.insert(key.to_owned(), value.trim_matches('"').into());
    }
    let of_release = |key: &str| release.get(key).cloned().unwrap_or_else(|| "".into());
    Ok(json!({
        "hostname": text(name.nodename()),
        "uptime": uptime,
        "bootTime": now.saturating_sub(uptime),
        "procs": processes.count(),
        "os": std::env::consts::OS,
        "platform": of_release("ID"),
        "platformFamily": of_release("ID_LIKE"),
        "platformVersion": of_release("VERSION_ID"),
        "kernelVersion": text(name.release()),
        "kernelArch": text(name.machine()),
        "hostid": read("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim(),
    }))
}

fn disk(path: &Path) -> Result<Value, String> {
    let found = rustix::fs::statvfs(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let (total, free) = (found.f_blocks * found.f_frsize, found.f_bfree * found.f_frsize);
    let used = total.saturating_sub(free);
    let inodes_used = found.f_files.saturating_sub(found.f_ffree);
    Ok(json!({
        "path": path.display().to_string(),
        "total": total,
        "free": found.f_bavail * found.f_frsize,
        "used": used,
        "usedPercent": percent(used, total),
        "inodesTotal": found.f_files,
        "inodesUsed": inodes_used,
        "inodesFree": found.f_ffree,
        "inodesUsedPercent": percent(inodes_used, found.f_files),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_is_described_by_what_it_says_of_itself() {
        let host = describe(Path::new("/"));
        assert!(host["CollectionTime"].as_u64().unwrap() > 1_700_000_000_000_000_000);
        if cfg!(target_os = "linux") {
            assert_eq!(host["Errors"], Value::Null);
            let total = host["Memory"]["total"].as_u64().unwrap();
            assert!(total > 0 && host["Memory"]["available"].as_u64().unwrap() <= total);
            assert!(!host["CPU"].as_array().unwrap().is_empty());
            assert!(host["Disk"]["total"].as_u64().unwrap() > 0);
            assert!(host["Host"]["procs"].as_u64().unwrap() > 0);
            let (resident, space) = memory_of_process().unwrap();
            assert!(0 < resident && resident < space);
        }
    }

    #[test]
    fn what_is_missing_is_said() {
        let host = describe(Path::new("/no/such/folder"));
        assert_eq!(host["Disk"], Value::Null);
        let errors = host["Errors"].as_array().unwrap();
        assert!(
            errors
                .iter()
                .any(|error| error.as_str().unwrap().starts_with("disk: /no/such/folder"))
        );
    }

    #[test]
    fn memory_is_in_bytes() {
        let shown =
            memory("MemTotal:  1000 kB\nMemFree: 100 kB\nBuffers: 50 kB\nCached: 150 kB\nSwapCached: 9 kB\n");
        assert_eq!(
            (shown["total"].as_u64(), shown["used"].as_u64()),
            (Some(1_024_000), Some(700 * 1024))
        );
        assert_eq!(shown["usedPercent"].as_f64(), Some(70.0));
    }

    #[test]
    fn times_are_written_as_consul_does() {
        let text = timestamp();
        assert_eq!(text.len(), "2026-01-31 12:00:00 +0000 UTC".len(), "{text}");
    }
}
