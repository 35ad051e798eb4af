//! How many threads are worth having.
//!
//! The least of three numbers: the processors that this process may run on, the quota of its control group (a
//! container with two processors' worth of time on a machine of 64), and the cores behind those processors (two
//! threads of one core share the units that kernels keep busy).
//!
//! What cannot be read says nothing: on other systems than Linux only the first number counts.

use std::collections::BTreeSet;
use std::path::Path;

/// The number of threads for this process.
pub fn usable() -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    usable_under(Path::new("/"), processors)
}

/// [`usable`] for a process that may run on `processors` processors and sees the files under `root`.
fn usable_under(root: &Path, processors: usize) -> usize {
    let limits = [quota(root), cores(root)];
    limits
        .into_iter()
        .flatten()
        .fold(processors, usize::min)
        .max(1)
}

fn read(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

/// Whole processors that the control group's quota pays for, of the group and all those around it.
fn quota(root: &Path) -> Option<usize> {
    let groups = read(&root.join("proc/self/cgroup"))?;
    let of_group = |line: &str| {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let is_cpu = controllers.split(',').any(|name| name == "cpu");
        let mounts = match (controllers.is_empty(), is_cpu) {
            (true, _) => vec!["sys/fs/cgroup".to_string()],
            (_, true) => vec![
                format!("sys/fs/cgroup/{controllers}"),
                "sys/fs/cgroup/cpu".into(),
            ],
            _ => return None,
        };
        let path = Path::new(path.trim_start_matches('/'));
        // A container may see its own group as the root, so a path that leads nowhere is no error.
        let folders = mounts.iter().flat_map(|mount| {
            path.ancestors()
                .map(move |group| root.join(mount).join(group))
        });
        folders.filter_map(|folder| quota_of(&folder)).min()
    };
    groups.lines().filter_map(of_group).min()
}

/// The quota of one group: `max 100000` or `200000 100000` in one file, or two files with a number each.
fn quota_of(folder: &Path) -> Option<usize> {
    let text = read(&folder.join("cpu.max")).or_else(|| {
        let [quota, period] =
            ["cpu.cfs_quota_us", "cpu.cfs_period_us"].map(|name| folder.join(name));
        Some(format!(
            "{} {}",
            read(&quota)?.trim(),
            read(&period)?.trim()
        ))
    })?;
    let mut numbers = text.split_whitespace().map(str::parse::<usize>);
    let (Some(Ok(quota)), Some(Ok(period))) = (numbers.next(), numbers.next()) else {
        return None;
    };
    quota.checked_div(period).map(|whole| whole.max(1))
}

/// The cores behind the processors that this process may run on.
fn cores(root: &Path) -> Option<usize> {
    let status = read(&root.join("proc/self/status"))?;
    let mut lines = status.lines();
    let allowed = lines.find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    let core_of = |cpu: usize| {
        let folder = root.join(format!("sys/devices/system/cpu/cpu{cpu}/topology"));
        read(&folder.join("core_cpus_list")).or_else(|| read(&folder.join("thread_siblings_list")))
    };
    let cores: Option<BTreeSet<String>> = list(allowed)?.into_iter().map(core_of).collect();
    cores.map(|cores| cores.len()).filter(|&n| n > 0)
}

/// The numbers of a list such as `0-3,8`.
fn list(text: &str) -> Option<Vec<usize>> {
    let mut numbers = Vec::new();
    for part in text.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        numbers.extend(first.parse::<usize>().ok()?..=last.parse().ok()?);
    }
    Some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with these files.
    fn fixture(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        root
    }

    fn usable(files: &[(&str, &str)]) -> usize {
        usable_under(fixture(files).path(), 8)
    }

    #[test]
    fn without_files_the_processors_count() {
        assert_eq!(usable(&[]), 8);
        assert_eq!(usable_under(fixture(&[]).path(), 0), 1);
    }

    #[test]
    fn the_smallest_quota_around_the_group_counts() {
        let group = ("proc/self/cgroup", "0::/pod/app\n");
        let app = |text| ("sys/fs/cgroup/pod/app/cpu.max", text);
        let pod = |text| ("sys/fs/cgroup/pod/cpu.max", text);
        assert_eq!(usable(&[group, app("max 100000\n")]), 8);
        assert_eq!(usable(&[group, app("300000 100000\n")]), 3);
        assert_eq!(
            usable(&[group, app("300000 100000\n"), pod("250000 100000\n")]),
            2
        );
        assert_eq!(usable(&[group, app("50000 100000\n")]), 1);
        assert_eq!(usable(&[group, app("5000000 100000\n")]), 8);
        assert_eq!(usable(&[group, app("100000 0\n")]), 8, "no period");
        assert_eq!(
            usable(&[group, ("sys/fs/cgroup/cpu.max", "400000 100000")]),
            4
        );
    }

    #[test]
    fn the_older_files_of_a_quota_count_too() {
        let group = ("proc/self/cgroup", "5:memory:/a\n4:cpu,cpuacct:/a\n");
        let files = |mount: &str, quota: &str| {
            let name = |file: &str| format!("sys/fs/cgroup/{mount}/a/cpu.cfs_{file}_us");
            let (quota_file, period_file) = (name("quota"), name("period"));
            usable(&[group, (&quota_file, quota), (&period_file, "100000\n")])
        };
        assert_eq!(files("cpu,cpuacct", "200000\n"), 2);
        assert_eq!(files("cpu", "600000\n"), 6);
        assert_eq!(files("cpu", "-1\n"), 8);
        assert_eq!(files("memory", "200000\n"), 8);
    }

    #[test]
    fn threads_of_one_core_count_once() {
        let topology = |allowed: &str, siblings: [&str; 4], file: &str| {
            let status = format!("Name:\tx\nCpus_allowed_list:\t{allowed}\n");
            let names: Vec<String> = (0..4)
                .map(|cpu| format!("sys/devices/system/cpu/cpu{cpu}/topology/{file}"))
                .collect();
            let mut files = vec![("proc/self/status", status.as_str())];
            files.extend(names.iter().map(String::as_str).zip(siblings));
            usable(&files)
        };
        let pairs = ["0,2\n", "1,3\n", "0,2\n", "1,3\n"];
        assert_eq!(topology("0-3", pairs, "core_cpus_list"), 2);
        assert_eq!(topology("0-3", pairs, "thread_siblings_list"), 2);
        assert_eq!(topology("0,2", pairs, "core_cpus_list"), 1);
        assert_eq!(topology("0-3", ["0", "1", "2", "3"], "core_cpus_list"), 4);
        assert_eq!(
            topology("0-7", pairs, "core_cpus_list"),
            8,
            "four are unknown"
        );
        assert_eq!(topology("all", pairs, "core_cpus_list"), 8);
    }
}
