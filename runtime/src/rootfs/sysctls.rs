//! `linux.sysctl` (config-linux.md, "Sysctl"): what is the container's own namespaces' to set, and no more.

use std::ffi::CString;
use std::path::Path;

use oci_spec::runtime::{LinuxNamespaceType, Spec};

use crate::joined;
use crate::plan::path_string;
use crate::spec::{SpecError, invalid};

/// One kernel parameter.
#[derive(Debug)]
pub struct Sysctl {
    /// Below proc: `sys/net/ipv4/…`.
    pub path: CString,
    /// What is written.
    pub value: Vec<u8>,
}

/// One key, one value: what a namespace of the container's own holds, and nothing with separators.
pub fn sysctls(spec: &Spec) -> Result<Vec<Sysctl>, SpecError> {
    let linux = spec.linux().as_ref().ok_or(SpecError::Missing("linux"))?;
    let mut sysctls = Vec::new();
    for (key, value) in linux.sysctl().iter().flatten() {
        let field = format!("linux.sysctl[{key:?}]");
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if !key.bytes().all(plain) || key.contains("..") {
            return Err(invalid(field, "not a plain dotted key"));
        }
        if value.is_empty() || value.bytes().any(|byte| byte < b' ' || byte == 0x7f) {
            return Err(invalid(field, "the value is empty or has control characters"));
        }
        let namespace = sysctl_namespace(key);
        if !namespace.is_some_and(|namespace| joined::has(spec, namespace)) {
            return Err(invalid(field, "not a parameter of a namespace of the container's own"));
        }
        let path = path_string(&field, Path::new(&format!("sys/{}", key.replace('.', "/"))))?;
        sysctls.push(Sysctl { path, value: value.clone().into_bytes() });
    }
    sysctls.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(sysctls)
}

fn sysctl_namespace(key: &str) -> Option<LinuxNamespaceType> {
    const IPC: [&str; 8] = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    match key {
        _ if IPC.contains(&key) || key.starts_with("fs.mqueue.") => Some(LinuxNamespaceType::Ipc),
        _ if key.starts_with("net.") => Some(LinuxNamespaceType::Network),
        _ => None,
    }
}
