//! R13, R14: who runs a program when the image's own files say it.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

use nix::sys::stat::Mode;

use crate::bundle::{Bundle, is_root, said};

#[test]
fn numbers_and_names_become_exactly_that_user_or_an_error() {
    if !is_root() {
        return;
    }
    let bundle = Bundle::new("names");
    bundle.sleep();
    let ids = "echo $(id -u) $(id -g) $(id -G)";
    let exact = [
        ("", "0 0 0 55"),
        ("0", "0 0 0 55"),
        ("app", "33 44 44 55 66"),
        ("33", "33 44 44 55 66"),
        ("app:extra", "33 55 55"),
        ("app:0", "33 0 0"),
        ("77", "77 0 0"),
        ("77:99", "77 99 99"),
        ("65535:65535", "65535 65535 65535"),
    ];
    for (user, wanted) in exact {
        let text = bundle.succeed(bundle.exec(&["-u", user], ids));
        assert_eq!(text.trim(), wanted, "user {user:?}");
    }
    let refused = [
        "4294967296",
        "4294967295",
        "2147483648",
        "65536",
        "-1",
        "00",
        "007",
        "+5",
        "1e3",
        "0x0",
        ":0",
        "root:",
        "root:99999999999",
        "root:-1",
        "nobodyhere",
        "root:nogroup",
        "a:b:c",
        "root\n",
    ];
    for user in refused {
        let output = bundle.exec(&["-u", user], ids);
        assert!(!output.status.success(), "user {user:?} was taken: {}", said(&output));
        assert!(output.stdout.is_empty(), "user {user:?} ran something: {}", said(&output));
    }
}

#[test]
fn account_files_that_are_traps_do_no_harm() {
    if !is_root() {
        return;
    }
    let bundle = Bundle::new("traps");
    let path = bundle.root("etc/passwd");
    let secret = bundle.outside("secret");
    fs::write(&secret, "trap:x:12:12::/:/bin/sh\n").expect("write a host file");
    let traps: [(&str, &dyn Fn()); 6] = [
        ("fifo", &|| nix::unistd::mkfifo(&path, Mode::S_IRWXU).expect("make a FIFO")),
        ("link out", &|| symlink(&secret, &path).expect("link to the host")),
        ("magic link", &|| symlink("/proc/self/fd/0", &path).expect("link to a descriptor")),
        ("sparse", &|| {
            let file = fs::File::create(&path).expect("make a file");
            file.set_len(2 << 30).expect("make it sparse");
        }),
        ("zeros", &|| fs::write(&path, vec![0; 1 << 20]).expect("write zeros")),
        ("directory", &|| fs::create_dir(&path).expect("make a directory")),
    ];
    bundle.sleep();
    // What any later process takes here, where everything may be slow.
    let begin = Instant::now();
    bundle.succeed(bundle.exec(&["-u", "app"], "id"));
    let limit = Duration::from_secs(5) + 3 * begin.elapsed();
    for (name, make) in traps {
        if path.is_dir() {
            fs::remove_dir(&path).expect("remove the last trap");
        } else {
            fs::remove_file(&path).expect("remove the last trap");
        }
        make();
        let begin = Instant::now();
        let output = bundle.exec(&["-u", "trap"], "id");
        assert!(begin.elapsed() < limit, "{name} took {:?}", begin.elapsed());
        assert!(!output.status.success(), "{name}: {}", said(&output));
    }
    fs::remove_dir(&path).expect("remove the last trap");
    // The control: the same line in an ordinary file makes that user.
    fs::copy(&secret, &path).expect("write the file");
    let text = bundle.succeed(bundle.exec(&["-u", "trap"], "id -u"));
    assert_eq!(text, "12\n");
}
