//! AppArmor: whether the kernel has it, and the profile that containers enter where it is loaded.
//!
//! The profile's text is the installer's, which loads it; the supervisor's unit loads it again at each
//! start. It is one more fence around what namespaces, capabilities and seccomp hold already, so a
//! host without it runs containers all the same, and `berth doctor` says so.

use std::fs;

use berth_runtime::config::RuntimeConfig;

/// The profile's name.
pub const PROFILE: &str = "berth-container";
const ENABLED: &str = "/sys/module/apparmor/parameters/enabled";
const PROFILES: &str = "/sys/kernel/security/apparmor/profiles";

/// What the host has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The kernel has no AppArmor, or it is off.
    Off,
    /// It is on, but our profile is not loaded.
    NotLoaded,
    /// Our profile only logs.
    Complaining,
    /// Our profile is enforced.
    Enforced,
}

/// Whether the kernel's AppArmor is on.
pub fn is_on() -> bool {
    fs::read_to_string(ENABLED).is_ok_and(|text| text.trim() == "Y")
}

/// Whether a program may name `profile` to enter it; where the kernel's list cannot be read, it will say.
pub fn has(profile: &str) -> bool {
    // Stacks, children and other namespaces' profiles are the kernel's to judge.
    let judged_later = profile.contains("//") || profile.starts_with([':', '&']);
    let listed =
        |list: String| judged_later || profile == "unconfined" || mode_of(profile, &list).is_some();
    is_on() && fs::read_to_string(PROFILES).map_or(true, listed)
}

/// What the host has. Root's to ask.
pub fn state() -> State {
    match is_on() {
        false => State::Off,
        true => profile_state(&fs::read_to_string(PROFILES).unwrap_or_default()),
    }
}

/// Whether containers enter the profile.
pub fn applies(config: &RuntimeConfig) -> bool {
    config.apparmor && matches!(state(), State::Enforced | State::Complaining)
}

/// The kernel's list has lines such as `name (enforce)`.
fn mode_of<'a>(profile: &str, list: &'a str) -> Option<&'a str> {
    list.lines().find_map(|line| {
        let (name, mode) = line.rsplit_once(' ')?;
        (name == profile).then_some(mode)
    })
}

fn profile_state(list: &str) -> State {
    match mode_of(PROFILE, list) {
        None => State::NotLoaded,
        Some("(complain)") => State::Complaining,
        Some(_) => State::Enforced,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_profile_is_found_by_its_whole_name() {
        let list = "berth-container-old (enforce)\nlsb_release (enforce)\n";
        assert_eq!(profile_state(list), State::NotLoaded);
        let list = format!("{list}berth-container (complain)\n");
        assert_eq!(profile_state(&list), State::Complaining);
        assert_eq!(profile_state("berth-container (enforce)\n"), State::Enforced);
    }
}
