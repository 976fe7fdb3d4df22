//! Properties of a configuration that this runtime does not know: they have no effect (runtime-spec,
//! config.md, "Extensibility"), and whoever wrote them is told so.

use serde_json::Value;

/// Properties that are named at most.
const NAMED_MAX: usize = 20;

/// The paths of what is in `given` and not in `read`, which is what was understood of it; nulls say nothing.
pub fn properties(given: &Value, read: &Value) -> Vec<String> {
    let mut found = Vec::new();
    compare(given, read, "", &mut found);
    found
}

fn compare(given: &Value, read: &Value, path: &str, found: &mut Vec<String>) {
    match (given, read) {
        (Value::Object(given), Value::Object(read)) => {
            for (name, value) in given.iter().filter(|(_, value)| !value.is_null()) {
                if found.len() == NAMED_MAX {
                    return;
                }
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                match read.get(name) {
                    Some(known) => compare(value, known, &path, found),
                    None => found.push(path),
                }
            }
        }
        (Value::Array(given), Value::Array(read)) => {
            for (index, (given, read)) in given.iter().zip(read).enumerate() {
                compare(given, read, &format!("{path}[{index}]"), found);
            }
        }
        _ => {}
    }
}
