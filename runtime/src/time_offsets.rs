//! `linux.timeOffsets`: the clocks of a new time namespace (time_namespaces(7)).

use std::ffi::CString;
use std::fmt::Write as _;

use oci_spec::runtime::{Linux, LinuxNamespaceType, Spec};

use crate::joined::is_new;
use crate::spec::{SpecError, invalid};

/// What is written to `timens_offsets` before anybody is in the new namespace; none without offsets.
pub fn lines(spec: &Spec, linux: &Linux) -> Result<Option<CString>, SpecError> {
    let Some(offsets) = linux.time_offsets().as_ref().filter(|map| !map.is_empty()) else {
        return Ok(None);
    };
    if !is_new(spec, LinuxNamespaceType::Time) {
        return Err(invalid("linux.timeOffsets", "they are those of a new time namespace"));
    }
    let mut text = String::new();
    for (clock, offset) in offsets {
        let field = format!("linux.timeOffsets[{clock:?}]");
        if !["monotonic", "boottime"].contains(&clock.as_str()) {
            return Err(invalid(field, "only the clocks monotonic and boottime have offsets"));
        }
        let (seconds, nanos) = (offset.secs().unwrap_or(0), offset.nanosecs().unwrap_or(0));
        if nanos >= NANOS_PER_SECOND {
            return Err(invalid(field, format!("{nanos} nanoseconds are more than a second")));
        }
        writeln!(text, "{clock} {seconds} {nanos}").expect("writing to a string cannot fail");
    }
    CString::new(text).map(Some).map_err(|_| invalid("linux.timeOffsets", "a NUL byte"))
}

const NANOS_PER_SECOND: u32 = 1_000_000_000;
