use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::Barrier;

use tempfile::TempDir;

use super::*;

const SECRET: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const OTHER: &str = "//79/Pv6+fj39vX08/Lx8O/u7ezr6uno5+bl5OPi4eA=";

fn write(dir: &TempDir, text: &str, mode: u32) -> PathBuf {
    let path = dir.path().join("keys");
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    path
}

fn refused(result: Result<Keyring>, problem: &str) {
    let error = result.err().expect("the key file is refused");
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert!(error.message().contains(problem), "{error}");
}

#[test]
fn the_highest_active_key_seals_and_every_key_opens() {
    let dir = TempDir::new().unwrap();
    let text = format!(
        "# keys\n\n 3:{SECRET}:decrypt # the old one\n1:{OTHER}:active\n2 : {} : active\n",
        BASE64.encode([7; 32])
    );
    let keyring = Keyring::load(&write(&dir, &text, 0o400), &[]).unwrap();
    assert_eq!(keyring.active().unwrap().id(), 2);
    assert_eq!(
        keyring.keys().iter().map(Key::id).collect::<Vec<_>>(),
        [3, 1, 2]
    );
    assert_eq!(
        keyring.by_id(3).unwrap().secret(),
        &core::array::from_fn::<u8, 32, _>(|i| i as u8)
    );
    assert!(keyring.by_id(4).is_none());
    let check_values: std::collections::HashSet<_> =
        keyring.keys().iter().map(Key::check_value).collect();
    assert_eq!(check_values.len(), 3);
}

/// HMAC-SHA256 by another implementation, its first eight bytes.
#[test]
fn the_check_value_is_the_known_one() {
    let keyring = Keyring::parse(&format!("1:{SECRET}:active")).unwrap();
    assert_eq!(
        keyring.keys()[0].check_value(),
        [0xa6, 0xec, 0x96, 0xbd, 0x73, 0xdb, 0x43, 0x37]
    );
}

#[test]
fn a_keyring_without_an_active_key_only_opens() {
    let keyring = Keyring::parse(&format!("1:{SECRET}:decrypt")).unwrap();
    assert_eq!(
        keyring.active().err().unwrap().kind(),
        ErrorKind::Configuration
    );
}

#[test]
fn malformed_files_are_refused_without_showing_what_they_hold() {
    let cases = [
        (String::new(), "has no key"),
        ("# only this\n".into(), "has no key"),
        (format!("1:{SECRET}"), "no id:key:state in line 1"),
        (format!("1:{SECRET}:active:x"), "no id:key:state in line 1"),
        (format!("\nx:{SECRET}:active"), "no number as id in line 2"),
        (format!("-1:{SECRET}:active"), "no number as id"),
        (format!("4294967296:{SECRET}:active"), "no number as id"),
        (
            format!("1:{SECRET}:retired"),
            "a state other than active and decrypt in line 1",
        ),
        (
            "1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh==:active".into(),
            "not 32 bytes in base64",
        ),
        (
            format!("1:{}:active", BASE64.encode([1; 31])),
            "not 32 bytes in base64",
        ),
        (
            format!("1:{}:active", BASE64.encode([1; 33])),
            "not 32 bytes in base64",
        ),
        (
            format!("1:{}:active", BASE64.encode([1; 100])),
            "not 32 bytes in base64",
        ),
        (
            format!("1:{SECRET}:active\n1:{OTHER}:decrypt"),
            "an id for the second time in line 2",
        ),
    ];
    for (text, problem) in cases {
        let dir = TempDir::new().unwrap();
        let path = write(&dir, &text, 0o600);
        let error = Keyring::load(&path, &[])
            .err()
            .expect("the key file is refused");
        assert!(!format!("{error:?}").contains("AAEC"), "{error:?}");
        refused(Keyring::load(&path, &[]), problem);
    }
}

#[test]
fn files_that_others_may_touch_are_refused() {
    let dir = TempDir::new().unwrap();
    for mode in [0o640, 0o604, 0o620, 0o602, 0o610, 0o777] {
        refused(
            Keyring::load(&write(&dir, &format!("1:{SECRET}:active"), mode), &[]),
            "by other users",
        );
    }
    assert!(Keyring::load(&write(&dir, &format!("1:{SECRET}:active"), 0o600), &[]).is_ok());
}

#[test]
fn only_our_own_files_and_the_administrators_are_believed() {
    assert!(trusts(26, 26) && trusts(0, 26) && trusts(0, 0));
    assert!(!trusts(27, 26) && !trusts(26, 0));
    let dir = TempDir::new().unwrap();
    let path = write(&dir, &format!("1:{SECRET}:active"), 0o600);
    // The administrator's own files are believed by everybody: that of a root is given away.
    let us = match rustix::process::geteuid().as_raw() {
        0 => {
            std::os::unix::fs::chown(&path, Some(65_534), None).unwrap();
            0
        }
        owner => owner + 1,
    };
    let error = KeyFile::open_as(&path, &[], us)
        .err()
        .expect("it is another user's");
    assert!(
        error.message().contains("belongs to another user"),
        "{error}"
    );
}

#[test]
fn what_is_no_file_is_refused() {
    let dir = TempDir::new().unwrap();
    refused(
        Keyring::load(&dir.path().join("none"), &[]),
        "cannot be read",
    );
    refused(Keyring::load(dir.path(), &[]), "is not a key file");
    refused(
        Keyring::load(Path::new("/dev/null"), &[]),
        "is not a key file",
    );
    refused(
        Keyring::load(&write(&dir, &"#".repeat(70_000), 0o600), &[]),
        "is not a key file",
    );
    refused(
        Keyring::load(&write(&dir, "1:\u{fffd}:active", 0o600), &[]),
        "not 32 bytes",
    );
    let pipe = dir.path().join("pipe");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::FileType::Fifo,
        0o600.into(),
        0,
    )
    .unwrap();
    refused(Keyring::load(&pipe, &[]), "is not a key file");
    fs::write(dir.path().join("keys"), [0xff, 0xfe]).unwrap();
    refused(
        Keyring::load(&dir.path().join("keys"), &[]),
        "cannot be read",
    );
}

#[test]
fn keys_in_a_forbidden_directory_are_refused_however_one_gets_there() {
    let data = TempDir::new().unwrap();
    let elsewhere = TempDir::new().unwrap();
    let forbidden = [data.path().to_owned()];
    let inside = write(&data, &format!("1:{SECRET}:active"), 0o600);
    refused(Keyring::load(&inside, &forbidden), "backups copy");

    let link = elsewhere.path().join("link");
    symlink(&inside, &link).unwrap();
    refused(Keyring::load(&link, &forbidden), "backups copy");
    let dir_link = elsewhere.path().join("dir");
    symlink(data.path(), &dir_link).unwrap();
    refused(
        Keyring::load(&dir_link.join("keys"), &forbidden),
        "backups copy",
    );
    refused(
        Keyring::create(&data.path().join("new"), &forbidden, 1),
        "backups copy",
    );
    refused(
        Keyring::create(&dir_link.join("new"), &forbidden, 1),
        "backups copy",
    );
    assert!(!data.path().join("new").exists());
    // The forbidden directory may itself be named by a link.
    refused(Keyring::load(&inside, &[dir_link]), "backups copy");

    // A link that stays outside is how some platforms mount secrets.
    let outside = write(&elsewhere, &format!("1:{SECRET}:active"), 0o600);
    let good_link = elsewhere.path().join("good");
    symlink(&outside, &good_link).unwrap();
    assert!(Keyring::load(&good_link, &forbidden).is_ok());
    // A directory of which the name only begins alike is another directory.
    let sibling = PathBuf::from(format!("{}-keys", data.path().display()));
    fs::create_dir(&sibling).unwrap();
    let created = Keyring::create(&sibling.join("keys"), &forbidden, 1);
    fs::remove_dir_all(&sibling).unwrap();
    assert!(created.is_ok());
}

#[test]
fn a_forbidden_directory_that_cannot_be_looked_at_forbids_all() {
    let dir = TempDir::new().unwrap();
    let path = write(&dir, &format!("1:{SECRET}:active"), 0o600);
    refused(
        Keyring::load(&path, &[dir.path().join("gone")]),
        "could not look",
    );
}

#[test]
fn a_new_file_is_ours_alone_and_loads_again() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("keys");
    let created = Keyring::create(&path, &[], 1).unwrap();
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    let loaded = Keyring::load(&path, &[]).unwrap();
    assert_eq!(
        loaded.active().unwrap().secret(),
        created.active().unwrap().secret()
    );
    assert_ne!(created.active().unwrap().secret(), &[0; 32]);
    refused(
        Keyring::create(&dir.path().join("no/such/keys"), &[], 1),
        "cannot be written",
    );
    refused(
        Keyring::create(Path::new("keys"), &[], 1),
        "is not an absolute path",
    );
}

#[test]
fn an_existing_file_is_never_replaced() {
    let dir = TempDir::new().unwrap();
    let path = write(&dir, &format!("9:{SECRET}:active"), 0o600);
    assert_eq!(
        Keyring::create(&path, &[], 1)
            .unwrap()
            .active()
            .unwrap()
            .id(),
        9
    );
    let path = write(&dir, "broken", 0o600);
    refused(Keyring::create(&path, &[], 1), "has no id:key:state");
    assert_eq!(fs::read_to_string(&path).unwrap(), "broken");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn whoever_comes_second_loads_what_the_first_made() {
    const CREATORS: usize = 8;
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("keys");
    let barrier = Barrier::new(CREATORS);
    let check_values: Vec<_> = std::thread::scope(|scope| {
        let creators: Vec<_> = (0..CREATORS)
            .map(|_| {
                scope.spawn(|| {
                    barrier.wait();
                    Keyring::create(&path, &[], 1)
                        .unwrap()
                        .active()
                        .unwrap()
                        .check_value()
                })
            })
            .collect();
        creators
            .into_iter()
            .map(|creator| creator.join().unwrap())
            .collect()
    });
    assert!(check_values.windows(2).all(|pair| pair[0] == pair[1]));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

fn key_lines(path: &Path) -> Vec<(u32, bool)> {
    let keyring = Keyring::load(path, &[]).unwrap();
    keyring
        .keys()
        .iter()
        .map(|key| (key.id, key.active))
        .collect()
}

#[test]
fn a_new_key_seals_and_the_old_ones_only_open() {
    let dir = TempDir::new().unwrap();
    let text =
        format!("# made by hand\n 2 : {SECRET} : active  # active in safe 4\n7:{OTHER}:active");
    let path = write(&dir, &text, 0o600);
    let rotated = Keyring::add_key(&path, &[], 7).unwrap();
    assert_eq!(rotated.active().unwrap().id(), 8);
    assert_eq!(key_lines(&path), [(2, false), (7, false), (8, true)]);
    let now = fs::read_to_string(&path).unwrap();
    assert!(now.starts_with(&format!(
        "# made by hand\n 2 : {SECRET} : decrypt  # active in safe 4\n7:{OTHER}:decrypt\n8:"
    )));
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    // Who was slower, and still thinks that 7 seals, changes nothing.
    assert_eq!(
        Keyring::add_key(&path, &[], 7)
            .unwrap()
            .active()
            .unwrap()
            .id(),
        8
    );
    assert_eq!(fs::read_to_string(&path).unwrap(), now);
}

#[test]
fn a_key_is_added_behind_a_link_and_no_id_comes_twice() {
    let dir = TempDir::new().unwrap();
    let path = write(
        &dir,
        &format!("4294967295:{SECRET}:decrypt\n1:{OTHER}:active"),
        0o600,
    );
    refused(Keyring::add_key(&path, &[], 1), "no id left");
    let path = write(
        &dir,
        &format!("5:{SECRET}:decrypt\n1:{OTHER}:active"),
        0o600,
    );
    let link = dir.path().join("link");
    symlink(&path, &link).unwrap();
    assert_eq!(
        Keyring::add_key(&link, &[], 1)
            .unwrap()
            .active()
            .unwrap()
            .id(),
        6
    );
    assert!(link.is_symlink());
    assert_eq!(key_lines(&path), [(5, false), (1, false), (6, true)]);
}

#[test]
fn a_broken_file_gets_no_key() {
    let dir = TempDir::new().unwrap();
    for text in ["", "1:AAEC", &format!("1:{SECRET}:decrypt")] {
        let path = write(&dir, text, 0o600);
        assert!(Keyring::add_key(&path, &[], 1).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
}

/// Rotations at once add one key: nobody's key is written over, and all go on with the same.
#[test]
fn of_many_who_add_a_key_one_does() {
    const ROUNDS: u32 = 20;
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("keys");
    Keyring::create(&path, &[], 1).unwrap();
    for old_id in 1..=ROUNDS {
        let barrier = Barrier::new(4);
        let add = || {
            barrier.wait();
            loop {
                match Keyring::add_key(&path, &[], old_id) {
                    Err(error) if error.kind() == ErrorKind::Transient => {}
                    added => return added.unwrap().active().unwrap().check_value(),
                }
            }
        };
        let check_values = std::thread::scope(|scope| {
            let adding: Vec<_> = (0..4).map(|_| scope.spawn(add)).collect();
            adding
                .into_iter()
                .map(|one| one.join().unwrap())
                .collect::<Vec<_>>()
        });
        assert!(check_values.windows(2).all(|pair| pair[0] == pair[1]));
        assert_eq!(key_lines(&path).last(), Some(&(old_id + 1, true)));
    }
    assert_eq!(key_lines(&path).len() as u32, ROUNDS + 1);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

/// Half a file never seals with a key that was retired.
#[test]
fn a_file_cut_anywhere_seals_with_the_newest_key_or_not_at_all() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("keys");
    Keyring::create(&path, &[], 1).unwrap();
    Keyring::add_key(&path, &[], 1).unwrap();
    let whole = fs::read_to_string(&path).unwrap();
    for end in 0..whole.len() - 1 {
        let half = Keyring::parse(&whole[..end]);
        assert!(
            half.is_err() || half.is_ok_and(|keyring| keyring.active().is_err()),
            "{end}"
        );
    }
    fs::write(&path, &whole[..whole.len() - 20]).unwrap();
    let error = Keyring::load(&path, &[]).err().unwrap();
    assert!(error.hint().unwrap().contains("safe copy"), "{error:?}");
}

const SOON: std::time::Duration = std::time::Duration::from_secs(30);

#[test]
fn a_command_prints_the_keys() {
    let keyring =
        Keyring::from_command(&format!("cat; printf '7:{SECRET}:active'"), SOON, || {}).unwrap();
    assert_eq!(keyring.active().unwrap().id(), 7);
}

#[test]
fn what_a_command_does_wrong_is_told_without_what_it_prints() {
    let too_much = format!("yes 'AAEC' | head -c {}", MAX_FILE_BYTES + 1);
    let cases = [
        (
            format!("printf '1:{SECRET}:active'; exit 3"),
            ErrorKind::Transient,
            "exit status: 3",
        ),
        ("kill -9 $$".into(), ErrorKind::Transient, "signal: 9"),
        (too_much, ErrorKind::Transient, "prints too much"),
        ("true".into(), ErrorKind::Configuration, "has no key"),
        (
            format!("echo 1:{SECRET}"),
            ErrorKind::Configuration,
            "no id:key:state",
        ),
        (
            "printf '\\377AAEC'".into(),
            ErrorKind::Configuration,
            "is not text",
        ),
    ];
    for (command, kind, words) in cases {
        let error = Keyring::from_command(&command, SOON, || {}).err().unwrap();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.message().contains(words), "{error}");
        assert!(!format!("{error:?}").contains("AAEC"), "{error:?}");
    }
}

/// Whoever waits for it neither waits for ever nor leaves it behind.
#[test]
fn a_command_that_hangs_is_ended() {
    let dir = TempDir::new().unwrap();
    let pid_file = dir.path().join("pid");
    // Its name is there only with its text.
    let pid = pid_file.display();
    let command = format!("echo $$ > {pid}.new; mv {pid}.new {pid}; exec sleep 600");
    let is_over = || {
        let pid = fs::read_to_string(&pid_file).unwrap();
        !Path::new("/proc").join(pid.trim()).exists()
    };
    let limit = std::time::Duration::from_secs(2);
    let late = Keyring::from_command(&command, limit, || {}).err().unwrap();
    assert_eq!(late.kind(), ErrorKind::Transient);
    assert!(late.message().contains("too long"), "{late}");
    assert!(is_over());
    fs::remove_file(&pid_file).unwrap();
    let canceled = std::panic::catch_unwind(|| {
        Keyring::from_command(&command, SOON, || assert!(!pid_file.exists(), "canceled"))
    });
    assert!(canceled.is_err());
    assert!(is_over());
}
