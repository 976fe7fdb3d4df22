//! "Allowed Device list": rules in the listed order.

use serde_json::{Value, json};

use crate::case::{Case, is_berths};

/// Opens devices in a container with these rules; which of them could be, by name. The nodes come from the
/// container itself, which may make what the rules let it make.
fn opened(name: &str, rules: Value) -> Option<String> {
    let case = Case::new(name)?;
    let mut capabilities = case.config["process"]["capabilities"]["bounding"].clone();
    capabilities.as_array_mut().expect("a list").push("CAP_MKNOD".into());
    let script = "for node in null:1:3 kmsg:1:11 port:1:4 loop:10:237; do \
        name=${node%%:*}; numbers=${node#*:}; \
        mknod /$name c ${numbers%:*} ${numbers#*:} 2>/dev/null && echo made $name; done; \
        for name in null zero; do true </dev/$name && echo read $name; done; true";
    std::os::unix::fs::symlink("busybox", case.directory.join("rootfs/bin/mknod"))
        .expect("link an applet");
    let case = case.script(script).with("/linux/resources", json!({ "devices": rules }));
    let case = ["bounding", "effective", "permitted"].into_iter().fold(case, |case, set| {
        case.with(&format!("/process/capabilities/{set}"), capabilities.clone())
    });
    Some(case.run().replace('\n', ","))
}

#[test]
fn device_rules_are_applied_in_order() {
    let rule = |allow: bool, text: &str| {
        let (access, numbers) = text.split_once(' ').unwrap_or((text, ""));
        let (major, minor) = numbers.split_once(':').unwrap_or_default();
        let number = |text: &str| text.parse::<i64>().ok();
        match (number(major), number(minor)) {
            (None, _) if numbers.is_empty() => json!({ "allow": allow, "access": access }),
            (major, minor) => json!({ "allow": allow, "type": "c", "access": access,
                "major": major, "minor": minor }),
        }
    };
    let always = "read null,read zero,";
    for (name, rules, made) in [
        ("none", json!([rule(false, "rwm")]), ""),
        ("one", json!([rule(false, "rwm"), rule(true, "m 1:11")]), "made kmsg,"),
        (
            "wide",
            json!([rule(false, "rwm"), rule(true, "rwm 1:")]),
            "made null,made kmsg,made port,",
        ),
        (
            "taken",
            json!([
                rule(false, "rwm"),
                rule(true, "rwm 1:11"),
                rule(true, "m 1:4"),
                rule(false, "m 1:11")
            ]),
            "made port,",
        ),
        ("all", json!([rule(true, "rwm")]), "made null,made kmsg,made port,made loop,"),
        (
            "but",
            json!([rule(true, "rwm"), rule(false, "m 1:11"), rule(false, "w 10:237")]),
            "made null,made port,made loop,",
        ),
        ("closed", json!([rule(true, "rwm"), rule(false, "rwm")]), ""),
    ] {
        if !is_berths() && name != "all" {
            // runc lets nodes of every kind be made, whatever the rules say, and only not be opened.
            continue;
        }
        let Some(found) = opened(&format!("devices-{name}"), rules) else { return };
        assert_eq!(found, format!("{made}{always}"), "{name}");
    }
}

/// What v1 would take for another rule is refused on both layouts.
#[test]
fn a_rule_that_takes_back_a_part_is_refused() {
    let Some(case) = Case::new("devices-part") else { return };
    let rules = json!([
        { "allow": false, "access": "rwm" },
        { "allow": true, "type": "c", "major": 10, "access": "rwm" },
        { "allow": false, "type": "c", "major": 10, "minor": 229, "access": "rwm" },
    ]);
    let text = case.with("/linux/resources", json!({ "devices": rules })).create_refused();
    assert!(!is_berths() || text.contains("linux.resources.devices[2]"), "{text}");
}
