//! Units of systemd and lines of a crontab, as text.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use jiff::tz::TimeZone;
use rekindle_config::{Config, Kind};
use rekindle_core::schedule::{Job, Task};

/// How long the service may be silent before systemd starts it again, in seconds.
const WATCHDOG_SECONDS: u64 = 120;
/// Beyond the grace: running work is asked to end, then killed.
const STOP_SECONDS: u64 = 90;

/// What units are made for.
pub(crate) struct Site<'a> {
    pub(crate) config: &'a Config,
    /// Absolute.
    pub(crate) config_file: PathBuf,
    pub(crate) program: PathBuf,
    pub(crate) user: &'a str,
    /// `NAME:PATH`, as `LoadCredential=` takes it.
    pub(crate) credentials: &'a [String],
}

/// The unit of the service.
pub(crate) fn service(site: &Site<'_>) -> String {
    let config = site.config;
    let stop = config.serve.grace.as_secs() + STOP_SECONDS;
    let mut text = format!(
        "# Made by `rekindle install systemd`.\n\
         [Unit]\nDescription=rekindle: recovery points of {stack}\nDocumentation=man:rekindle(1)\n\
         After=network-online.target\nWants=network-online.target\n\n\
         [Service]\nType=notify\nNotifyAccess=main\n\
         # What a run left behind is cleared up first, and the store may not answer.\n\
         TimeoutStartSec=30min\nExecStart={program} --config {file} serve\n\
         User={user}\nGroup={user}\n\
         # Runs are asked by the service itself; what is left after the time is killed.\n\
         KillMode=mixed\nTimeoutStopSec={stop}\nRestart=on-failure\nRestartSec=10\nWatchdogSec={WATCHDOG_SECONDS}\n\
         StateDirectory=rekindle\nStateDirectoryMode=0700\nUMask=0077\n",
        stack = config.stack.name,
        program = quoted(&site.program),
        file = quoted(&site.config_file),
        user = site.user,
    );
    for credential in site.credentials {
        let _ = writeln!(text, "LoadCredential={}", credential.replace('%', "%%"));
    }
    let writable = writable(config);
    if !writable.is_empty() {
        let _ =
            writeln!(text, "ReadWritePaths={}", writable.iter().map(|path| quoted(path)).collect::<Vec<_>>().join(" "));
    }
    text.push_str(&rights(config));
    text.push_str(HARDENING);
    // Drills start their servers where no network is; `unshare` without root needs a user namespace for that.
    let namespaces = if drills(config) { "user net ipc" } else { "yes" };
    let _ = writeln!(text, "RestrictNamespaces={namespaces}");
    text.push_str("\n[Install]\nWantedBy=multi-user.target\n");
    text
}

fn drills(config: &Config) -> bool {
    let serve = &config.serve;
    [&serve.drill, &serve.daily, &serve.weekly, &serve.monthly].into_iter().any(Option::is_some)
}

/// What `StateDirectory=` below makes.
const STATE_DIRECTORY: &str = "/var/lib/rekindle";

/// Same for every stack.
const HARDENING: &str = "\
NoNewPrivileges=yes
ProtectSystem=strict
PrivateTmp=yes
PrivateDevices=yes
PrivateMounts=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
ProcSubset=all
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
RemoveIPC=yes
KeyringMode=private
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources @mount @swap @reboot @obsolete
SystemCallErrorNumber=EPERM
DevicePolicy=closed
LimitCORE=0
";

/// Files of other users can only be read with a capability; without such components there is none.
fn rights(config: &Config) -> String {
    let reads_files = config.components.iter().any(|one| !matches!(one.kind, Kind::Postgres(_) | Kind::Redis(_)));
    let at_home = config.components.iter().any(|one| match &one.kind {
        Kind::Files(files) => {
            files.paths.iter().any(|path| ["/home", "/root", "/run/user"].iter().any(|home| path.starts_with(home)))
        }
        _ => false,
    });
    let home = if at_home { "read-only" } else { "yes" };
    let rest = if reads_files {
        "# Reads every file, changes none.\nCapabilityBoundingSet=CAP_DAC_READ_SEARCH\nAmbientCapabilities=CAP_DAC_READ_SEARCH\n"
    } else {
        "CapabilityBoundingSet=\nAmbientCapabilities=\nPrivateUsers=yes\n"
    };
    format!("ProtectHome={home}\n{rest}")
}

/// Directories outside of the state directory that are written.
fn writable(config: &Config) -> Vec<PathBuf> {
    let local = |url: &String| {
        url.strip_prefix("file://").or_else(|| url.starts_with('/').then_some(url.as_str())).map(PathBuf::from)
    };
    let copies = config.copies.iter().filter_map(|copy| local(&copy.repository.url));
    let local = local(&config.repository.url);
    let textfile = config.serve.textfile.as_ref().and_then(|path| path.parent().map(Path::to_owned));
    let state = config.stack.state_dir.clone();
    let prometheus = config.components.iter().filter_map(|one| match &one.kind {
        // The snapshot it was asked for has to be deleted afterwards.
        Kind::Prometheus(prometheus) => prometheus.data_dir.as_ref().map(|directory| directory.join("snapshots")),
        _ => None,
    });
    // `-`: one that is not there is no reason not to start.
    let optional = prometheus.map(|path| PathBuf::from(format!("-{}", path.display())));
    // A disk with a copy may be away.
    let copies = copies.map(|path| PathBuf::from(format!("-{}", path.display())));
    let drills = config.drill.dir.iter().map(|path| PathBuf::from(format!("-{}", path.display())));
    // The state directory is writable as a whole. A path below it that is not there would only keep the service
    // from starting.
    let elsewhere = |path: &PathBuf| !path.starts_with(STATE_DIRECTORY);
    let sure = [local, textfile, state].into_iter().flatten().filter(elsewhere);
    sure.chain(optional).chain(copies).chain(drills).collect()
}

/// The account of the service, for systemd-sysusers.
pub(crate) fn sysusers(user: &str) -> String {
    format!("# Made by `rekindle install systemd`.\nu {user} - \"rekindle\" /var/lib/rekindle\n")
}

/// A path as systemd reads it: percent signs and dollars mean something there.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string().replace('%', "%%").replace('$', "$$");
    if text.contains([' ', '"', '\\', '\'']) {
        format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
    } else {
        text
    }
}

/// cron knows the zone of its host only. `Err`: the zone that is wanted, when its clock differs from the host's
/// within a year.
pub(crate) fn cron_zone(config: &Config, now: jiff::Timestamp) -> Result<(), String> {
    let Some(wanted) = &config.serve.zone else { return Ok(()) };
    // By their clocks: a host without a zone's name may still have its clock.
    let host = TimeZone::system();
    let days = (0..366).map(|day| now + jiff::SignedDuration::from_hours(24 * day));
    let mut differing = days.filter(|day| wanted.to_offset(*day) != host.to_offset(*day));
    match differing.next() {
        None => Ok(()),
        Some(_) => Err(wanted.iana_name().unwrap_or("another").to_owned()),
    }
}

/// Lines for `/etc/cron.d`. What has the same schedule becomes one line, and so one point.
/// `Err` names a schedule that only we understand.
pub(crate) fn crontab(site: &Site<'_>, jobs: &[Job]) -> Result<String, String> {
    let mut lines: BTreeMap<(String, Task), Vec<String>> = BTreeMap::new();
    for job in jobs {
        let schedule = job.schedule.as_str().trim();
        if schedule.contains(['L', 'W', '#', '?']) && !schedule.starts_with('@') {
            return Err(schedule.to_owned());
        }
        let components = lines.entry((schedule.to_owned(), job.name.task)).or_default();
        components.extend(job.name.component.as_ref().map(ToString::to_string));
    }
    let mut text = String::from(
        "# Made by `rekindle install cron`. Times are those of this host's clock. On the days of a clock\n\
         # change, and after the host was off, cron misses runs that `rekindle serve` would catch up.\n\
         SHELL=/bin/sh\nPATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n",
    );
    let word = |path: &Path| format!("'{}'", path.display().to_string().replace('\'', "'\\''")).replace('%', "\\%");
    for ((schedule, task), components) in lines {
        let _ = writeln!(
            text,
            "{schedule} {user} {program} --quiet --config {file} run {task} {components}",
            user = site.user,
            program = word(&site.program),
            file = word(&site.config_file),
            components = components.join(" "),
        );
    }
    Ok(text.lines().fold(String::new(), |all, line| all + line.trim_end() + "\n"))
}
