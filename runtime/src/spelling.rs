//! Configurations in the specification's spelling, where the crate that reads them has another.

use serde::de::DeserializeOwned;
use serde_json::{Error, Value};

/// The specification's name of a flag, and the crate's.
const OVERRUN: [&str; 2] = ["SCHED_FLAG_DL_OVERRUN", "SCHED_FLAG_D_L_OVERRUN"];
const AFFINITY: &str = "execCPUAffinity";

/// Reads JSON that may be, or hold, a process of a configuration.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    let has = |text: &str| bytes.windows(text.len()).any(|part| part == text.as_bytes());
    if !has(OVERRUN[0]) && !has(AFFINITY) {
        return serde_json::from_slice(bytes);
    }
    let mut value: Value = serde_json::from_slice(bytes)?;
    correct(&mut value);
    if let Some(process) = value.get_mut("process") {
        correct(process);
    }
    serde_json::from_value(value)
}

fn correct(process: &mut Value) {
    let flags = process.pointer_mut("/scheduler/flags").and_then(Value::as_array_mut);
    for flag in flags.into_iter().flatten() {
        if flag == OVERRUN[0] {
            *flag = OVERRUN[1].into();
        }
    }
    // An empty list is none (config.md, "execCPUAffinity").
    if let Some(affinity) = process.get_mut(AFFINITY).and_then(Value::as_object_mut) {
        affinity.retain(|_, list| list != "");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::{LinuxSchedulerFlag, Process, Spec};

    #[test]
    fn the_specifications_spelling_is_read() {
        let process = r#"{"user":{"uid":0,"gid":0},"cwd":"/","args":["SCHED_FLAG_DL_OVERRUN"],
            "scheduler":{"policy":"SCHED_DEADLINE","flags":["SCHED_FLAG_DL_OVERRUN"]},
            "execCPUAffinity":{"initial":"","final":"0"}}"#;
        let check = |process: &Process| {
            let scheduler = process.scheduler().as_ref().expect("it has one");
            assert_eq!(scheduler.flags(), &Some(vec![LinuxSchedulerFlag::SchedFlagDLOverrun]));
            assert_eq!(process.args(), &Some(vec![OVERRUN[0].to_owned()]), "as it was");
            let affinity = process.exec_cpu_affinity().as_ref().expect("it has one");
            assert_eq!(
                (affinity.initial(), affinity.cpu_affinity_final()),
                (&None, &Some("0".into()))
            );
        };
        check(&parse::<Process>(process.as_bytes()).expect("a process"));
        let whole = format!(r#"{{"ociVersion":"1.2.0","process":{process}}}"#);
        let spec = parse::<Spec>(whole.as_bytes()).expect("a configuration");
        check(spec.process().as_ref().expect("it has one"));
        // What is written down with it is read again.
        let again = serde_json::to_vec(&spec).expect("encoded");
        check(parse::<Spec>(&again).expect("a configuration").process().as_ref().expect("one"));
    }
}
