//! Everything a child will need, made before the clone: text, descriptors, mount steps, id maps and
//! filter bytes. What the child cannot find here it cannot do.

use std::ffi::{CString, OsString};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use oci_spec::runtime::{Linux, LinuxIdMapping, LinuxNamespaceType, Process, Spec};

use crate::accounts;
use crate::attributes::Attributes;
use crate::capability;
use crate::hooks::inside::List;
use crate::joined::{self, Joined};
use crate::namespace::IdMap;
use crate::rlimit::Limit;
use crate::rootfs::cgroups::OwnCgroup;
use crate::rootfs::devices;
use crate::rootfs::mounts::{self, Action, Context, Step, Volume};
use crate::rootfs::options::Propagation;
use crate::rootfs::sysctls::{Sysctl, sysctls};
use crate::rootfs::target::{Kind, Target};
use crate::scheduling::Scheduling;
use crate::seccomp::{self, Filter};
use crate::spec::{SpecError, check, check_process, invalid};
use crate::sys::exec::StringArray;
use crate::sys::prctl;
use crate::time_offsets;

/// A first process and its container.
#[derive(Debug)]
pub struct Plan {
    /// `CLONE_NEW*` flags for clone3.
    pub namespaces: u64,
    /// Whether the child makes a cgroup namespace, once it is in its cgroup.
    pub cgroup_namespace: bool,
    /// The maps of a new user namespace: users, groups.
    pub id_maps: Option<(Vec<IdMap>, Vec<IdMap>)>,
    /// Whether the child is in a user namespace of the container's, whose root it becomes.
    pub user_namespace: bool,
    /// Whether the mount namespace is joined: the root is a place in it, and nothing is mounted.
    pub mounts_joined: bool,
    /// What the root passes on to other mounts, and they to it.
    pub root_propagation: Propagation,
    /// What is written for the clocks of a new time namespace, made before the clone.
    pub time_offsets: Option<CString>,
    /// Whether to bring up the loopback interface of a new network namespace.
    pub loopback: bool,
    /// Whether the child waits for its parent before it enters the root.
    pub held: bool,
    /// Run before the root is entered.
    pub create_hooks: List,
    /// What goes into the root.
    pub mounts: MountPlan,
    /// The uts namespace's names.
    pub hostname: Option<OsString>,
    /// See `hostname`.
    pub domainname: Option<OsString>,
    /// The program.
    pub process: ProcessPlan,
}

/// What goes into the root file system.
#[derive(Debug)]
pub struct MountPlan {
    /// In order.
    pub steps: Vec<Step>,
    /// Which step attaches the null device.
    pub null_step: Option<usize>,
    /// Kernel parameters to write.
    pub sysctls: Vec<Sysctl>,
    /// Made read-only, relative to the root.
    pub read_only: Vec<CString>,
    /// Made unreadable, relative to the root.
    pub masked: Vec<CString>,
    /// Whether the root itself is read-only.
    pub root_read_only: bool,
    /// The working directory, to be made before the root is read-only.
    pub cwd: Option<Target>,
}

impl MountPlan {
    /// Adds volumes: each before whatever is mounted below it, and all before the staged files.
    pub fn add_volumes(&mut self, mut volumes: Vec<Volume>) {
        volumes.sort_by_key(|volume| volume.target.depth());
        for volume in volumes {
            let above = |step: &Step| match &step.action {
                Action::FileSystem(_, target) => target.is_below(&volume.target),
                Action::Staged(..) => true,
                _ => false,
            };
            let at = self.steps.iter().position(above).unwrap_or(self.steps.len());
            self.null_step = self.null_step.map(|index| index + usize::from(at <= index));
            let label = format!("a volume on {}", volume.target.shown());
            self.steps.insert(at, Step { label, action: Action::Volume(volume) });
        }
    }
}

/// A program and the state it starts in; the same for a container's first process and any later one.
#[derive(Debug)]
pub struct ProcessPlan {
    /// Who runs it.
    pub user: UserPlan,
    /// What its standard streams are.
    pub streams: Streams,
    /// Descriptors from 3 on that are left open, under their numbers.
    pub preserved: u32,
    /// File mode bits that are not given.
    pub umask: u32,
    /// Absolute.
    pub cwd: CString,
    /// Each directory on the way to `cwd`, to be made if absent.
    pub cwd_parents: Vec<CString>,
    /// Arguments.
    pub arguments: StringArray,
    /// Environment, with room for `HOME`.
    pub environment: StringArray,
    /// Whether `HOME` is the child's to find.
    pub home_wanted: bool,
    /// Where the program is looked for, in order.
    pub candidates: Vec<CString>,
    /// Capability sets.
    pub capabilities: capability::Sets,
    /// Capabilities that the kernel knows.
    pub capabilities_known: u8,
    /// Whether privileges can be gained by execve.
    pub no_new_privileges: bool,
    /// What is written to enter an AppArmor profile at execve.
    pub apparmor: Option<CString>,
    /// What the program inherits.
    pub attributes: Attributes,
    /// Its share of processors and disks, set by the parent.
    pub scheduling: Scheduling,
    /// Run before the program.
    pub start_hooks: List,
    /// The system call filter.
    pub seccomp: Option<Filter>,
    /// Resource limits, set by the parent.
    pub limits: Vec<Limit>,
    /// The kernel's preference when memory is short, set by the parent.
    pub oom_score_adj: Option<i32>,
}

/// What a program's standard input, output and error are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Streams {
    /// What the parent gives.
    Given,
    /// A new terminal of the container's.
    Terminal,
    /// The same, which is the container's `/dev/console` too.
    Console,
}

/// Who runs a program.
#[derive(Debug)]
pub enum UserPlan {
    /// By numbers.
    Numbers { user: u32, group: u32, groups: Vec<u32> },
    /// To be resolved in the container's root.
    Named(accounts::Request),
}

/// What a plan must know beside the configuration.
#[derive(Debug, Clone, Copy)]
pub struct Surroundings<'a> {
    /// Where relative sources of bind mounts start.
    pub bundle: &'a Path,
    /// The container's cgroup in each tree.
    pub own_cgroups: &'a [OwnCgroup],
    /// The namespaces that it joins.
    pub joined: &'a [Joined],
}

/// Plans a container; `files` are the names of staged files and their places.
pub fn plan(
    spec: &Spec,
    user: UserPlan,
    around: Surroundings<'_>,
    files: Vec<(CString, Target)>,
) -> Result<Plan, SpecError> {
    check(spec)?;
    let linux = spec.linux().as_ref().ok_or(SpecError::Missing("linux"))?;
    let process = spec.process().as_ref().ok_or(SpecError::Missing("process"))?;
    let time_offsets = time_offsets::lines(spec, linux)?;
    let mut namespaces = joined::new_flags(linux);
    namespaces &= !u64::from(libc::CLONE_NEWCGROUP.cast_unsigned());
    if time_offsets.is_some() {
        namespaces &= !u64::from(libc::CLONE_NEWTIME.cast_unsigned());
    }
    let cgroup_namespace = joined::has(spec, LinuxNamespaceType::Cgroup);
    let id_maps = joined::is_new(spec, LinuxNamespaceType::User).then(|| id_maps_of(linux));
    let mounts_joined = joined::is_joined(spec, LinuxNamespaceType::Mount);
    let filter = linux.seccomp().as_ref().map(seccomp::compile).transpose()?;
    if !joined::has(spec, LinuxNamespaceType::Uts) {
        for (field, name) in [("hostname", spec.hostname()), ("domainname", spec.domainname())] {
            if name.is_some() {
                return Err(invalid(field, "without a uts namespace it would be the host's"));
            }
        }
    }
    let mut program = process_plan(process, user, filter)?;
    program.attributes = Attributes::of(linux)?;
    program.give_what_is_ours(spec)?;
    if process.terminal() == Some(true) {
        // Nothing is bound over what others of a mount namespace see.
        program.streams = if mounts_joined { Streams::Terminal } else { Streams::Console };
    }
    let joined_user = around.joined.iter().find(|one| one.kind == LinuxNamespaceType::User);
    let context = Context {
        bundle: around.bundle,
        cgroup_namespace,
        own_cgroups: around.own_cgroups,
        id_maps: id_maps.as_ref(),
        user_namespace: joined_user.map(|one| one.fd.as_fd()),
    };
    let mounts = mount_plan(spec, context, files)?;
    Ok(Plan {
        namespaces,
        cgroup_namespace: joined::is_new(spec, LinuxNamespaceType::Cgroup),
        id_maps,
        user_namespace: joined::has(spec, LinuxNamespaceType::User),
        mounts_joined,
        time_offsets,
        held: false,
        create_hooks: List::default(),
        loopback: joined::is_new(spec, LinuxNamespaceType::Network),
        mounts,
        root_propagation: root_propagation(linux)?,
        hostname: spec.hostname().as_ref().map(OsString::from),
        domainname: spec.domainname().as_ref().map(OsString::from),
        process: program,
    })
}

impl ProcessPlan {
    /// Without a user namespace, in which root has them all, no more capabilities than the caller's own.
    pub fn give_what_is_ours(&mut self, spec: &Spec) -> Result<(), SpecError> {
        if !joined::has(spec, LinuxNamespaceType::User) {
            let own = own_capabilities()?;
            self.capabilities = self.capabilities.within(own);
        }
        Ok(())
    }
}

/// The capabilities that the caller can give.
pub fn own_capabilities() -> Result<u64, SpecError> {
    let own = prctl::capabilities();
    let failed = |errno: nix::Error| format!("read our own: {}", errno.desc());
    own.map(|own| own.permitted).map_err(|errno| invalid("process.capabilities", failed(errno)))
}

/// The user of a configuration, by number.
pub fn user_from_spec(process: &Process) -> UserPlan {
    let user = process.user();
    let groups = user.additional_gids().clone().unwrap_or_default();
    UserPlan::Numbers { user: user.uid(), group: user.gid(), groups }
}

/// Plans a program.
pub fn process_plan(
    process: &Process,
    user: UserPlan,
    seccomp: Option<Filter>,
) -> Result<ProcessPlan, SpecError> {
    check_process(process)?;
    let arguments = c_strings("process.args", process.args().as_deref().unwrap_or_default())?;
    let program = arguments.first().ok_or(SpecError::Missing("process.args"))?.clone();
    let variables = process.env().as_deref().unwrap_or_default();
    let candidates = candidates(&program, variables)?;
    let cwd = process.cwd();
    if !cwd.is_absolute() {
        return Err(invalid("process.cwd", format!("{} is not an absolute path", cwd.display())));
    }
    let mut directories: Vec<&Path> =
        cwd.ancestors().filter(|path| path.parent().is_some()).collect();
    directories.reverse();
    let home_wanted = !variables.iter().any(|variable| variable.starts_with("HOME="));
    let home_bytes_max = accounts::HOME_BYTES_MAX + "HOME=".len();
    Ok(ProcessPlan {
        user,
        streams: Streams::Given,
        preserved: 0,
        umask: process.user().umask().unwrap_or(0o022) & 0o777,
        cwd: path_string("process.cwd", cwd)?,
        cwd_parents: directories
            .into_iter()
            .map(|path| path_string("process.cwd", path))
            .collect::<Result<_, _>>()?,
        arguments: StringArray::new(arguments, 0),
        environment: StringArray::new(c_strings("process.env", variables)?, home_bytes_max),
        home_wanted,
        candidates,
        capabilities: capability::Sets::from_spec(process.capabilities().as_ref()),
        capabilities_known: capability::known().last().map_or(0, |last| last + 1),
        no_new_privileges: process.no_new_privileges().unwrap_or(false),
        apparmor: apparmor(process)?,
        attributes: Attributes::default(),
        scheduling: Scheduling::of(process)?,
        start_hooks: List::default(),
        seccomp,
        limits: process.rlimits().iter().flatten().map(Limit::from).collect(),
        oom_score_adj: process.oom_score_adj(),
    })
}

/// `exec <profile>`, the kernel's words (security/apparmor, `attr/exec`).
fn apparmor(process: &Process) -> Result<Option<CString>, SpecError> {
    let name = process.apparmor_profile().as_deref().filter(|name| !name.is_empty());
    let text = name.map(|name| CString::new(format!("exec {name}")));
    text.transpose().map_err(|_| invalid("process.apparmorProfile", "a NUL byte"))
}

fn mount_plan(
    spec: &Spec,
    context: Context<'_>,
    files: Vec<(CString, Target)>,
) -> Result<MountPlan, SpecError> {
    let linux = spec.linux().as_ref().ok_or(SpecError::Missing("linux"))?;
    let mut steps = mounts::plan(spec, context)?;
    let own_dev = !spec.mounts().iter().flatten().any(|mount| {
        let bound = mount.typ().as_deref() == Some("bind")
            || mount.options().iter().flatten().any(|option| option == "bind" || option == "rbind");
        bound && mount.destination() == Path::new("/dev")
    });
    let mut null_step = None;
    if own_dev && !joined::is_joined(spec, LinuxNamespaceType::Mount) {
        null_step = Some(steps.len());
        steps.extend(devices::steps(linux)?);
    }
    for (name, target) in files {
        steps.push(Step { label: target.shown(), action: Action::Staged(name, target) });
    }
    let protected = |field: &str, paths: &Option<Vec<String>>| {
        let paths = paths.iter().flatten();
        paths.map(|path| path_string(field, Path::new(path))).collect::<Result<Vec<_>, _>>()
    };
    Ok(MountPlan {
        steps,
        null_step,
        sysctls: sysctls(spec)?,
        read_only: protected("linux.readonlyPaths", linux.readonly_paths())?,
        masked: protected("linux.maskedPaths", linux.masked_paths())?,
        cwd: spec
            .process()
            .as_ref()
            .and_then(|process| process.cwd().to_str())
            .and_then(|path| Target::new(path, Kind::Directory, "process.cwd").ok()),
        root_read_only: spec.root().as_ref().is_some_and(|root| root.readonly() == Some(true)),
    })
}

/// A name without a slash is looked up in the container's `PATH`.
fn candidates(program: &CString, variables: &[String]) -> Result<Vec<CString>, SpecError> {
    if program.as_bytes().is_empty() {
        return Err(invalid("process.args", "the program's name is empty"));
    }
    if program.as_bytes().contains(&b'/') {
        return Ok(vec![program.clone()]);
    }
    let path = variables.iter().find_map(|variable| variable.strip_prefix("PATH="));
    let path = path.unwrap_or(PATH_DEFAULT);
    let name = program.to_string_lossy();
    // A relative directory would mean the working directory, which is the image's choice.
    let directories = path.split(':').filter(|directory| directory.starts_with('/'));
    directories.map(|directory| c_string("PATH", format!("{directory}/{name}"))).collect()
}

const PATH_DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

fn id_maps(mappings: &Option<Vec<LinuxIdMapping>>) -> Vec<IdMap> {
    mappings.iter().flatten().map(IdMap::from).collect()
}

fn c_strings(field: &str, texts: &[String]) -> Result<Vec<CString>, SpecError> {
    texts.iter().map(|text| c_string(field, text.as_str())).collect()
}

fn c_string(field: &str, text: impl Into<Vec<u8>>) -> Result<CString, SpecError> {
    CString::new(text).map_err(|_| invalid(field, "has a NUL byte"))
}

/// A path for the child; `field` names it in errors.
pub fn path_string(field: &str, path: &Path) -> Result<CString, SpecError> {
    c_string(field, path.as_os_str().as_bytes())
}

/// `linux.rootfsPropagation`; private where nothing is said.
pub fn root_propagation(linux: &Linux) -> Result<Propagation, SpecError> {
    let text = linux.rootfs_propagation().as_deref().filter(|text| !text.is_empty());
    let text = text.unwrap_or("rprivate");
    Propagation::parse(text).ok_or_else(|| {
        invalid("linux.rootfsPropagation", format!("{text:?} is no way of propagation"))
    })
}

/// The id maps of a configuration: users, groups.
pub fn id_maps_of(linux: &Linux) -> (Vec<IdMap>, Vec<IdMap>) {
    (id_maps(linux.uid_mappings()), id_maps(linux.gid_mappings()))
}
