//! Folders of prompts.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use llmkit_prompt::{Error, Prompts, builtin};
use serde_json::json;

fn write(folder: &Path, path: &str, text: &str) {
    let path = folder.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn said(prompts: &Prompts, name: &str) -> String {
    prompts.get(name).unwrap().render(json!({ "x": "X" })).unwrap()[0].content.clone()
}

#[test]
fn versions_stand_side_by_side_and_the_newest_is_meant() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "a/answer@1.10.0.md", "---\n---\nten");
    write(folder.path(), "a/answer@1.9.0.md", "---\nname: a/answer\n---\nnine");
    write(folder.path(), "a/answer.md", "+++\ndescription = \"old\"\n+++\nnone");
    write(folder.path(), "notes.txt", "no prompt");
    write(folder.path(), ".hidden.md", "no prompt");
    let prompts = Prompts::load(folder.path()).unwrap();
    assert_eq!(said(&prompts, "a/answer"), "ten");
    assert_eq!(
        prompts.get_version("a/answer", "1.9.0").unwrap().render(json!({})).unwrap()[0].content,
        "nine"
    );
    let own: Vec<_> = prompts.iter().filter(|file| file.name().starts_with("a/")).collect();
    let versions: Vec<_> = own.iter().map(|file| file.version()).collect();
    assert_eq!(versions, [None, Some("1.9.0"), Some("1.10.0")]);
    assert_eq!(own[0].description(), Some("old"));
    assert_ne!(own[0].prompt().content_hash(), own[1].prompt().content_hash());

    let error = prompts.get_version("a/answer", "2").unwrap_err().to_string();
    assert_eq!(error, "there is no prompt `a/answer` of version 2; there are: 1.9.0, 1.10.0");
    assert!(prompts.get("a/anwser").unwrap_err().to_string().ends_with("did you mean `a/answer`?"));
}

#[test]
fn everything_wrong_in_a_folder_is_listed() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "a.md", "no front matter");
    write(folder.path(), "b.md", "---\nname: c\n---\nHi");
    write(folder.path(), "d.md", "---\nvariables: [text]\n---\n{{ txet }}");
    write(folder.path(), "e.md", "---\nversion: \"1\"\n---\nHi");
    write(folder.path(), "e@1.md", "---\n---\nHo");
    write(folder.path(), "f@2.md", "---\nversion: \"1\"\n---\nHo");
    write(folder.path(), "p.jinja", "{% include 'p' %}");
    fs::write(folder.path().join("g.md"), b"---\n---\n\xff").unwrap();
    let error = Prompts::load(folder.path()).unwrap_err();
    let Error::PromptFolder { problems, .. } = &error else { panic!("{error}") };
    assert_eq!(problems.len(), 7, "{error}");
    let text = error.to_string();
    for part in [
        "a.md:1: expected front matter",
        "b.md:2: its name is `c`, its path says `b`",
        "d.md:4: `txet` is not declared; did you mean `text`?",
        "e@1.md:1: e.md has the same name and version",
        "f@2.md:2: its version is `1`, its path says `2`",
        "p:1: cannot `include`: it includes itself",
        "g.md:3: it is not UTF-8",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(matches!(Prompts::load("/no/such/folder").unwrap_err(), Error::Io { .. }));
}

#[test]
fn a_file_that_is_too_large_is_not_read() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "a.md", &format!("---\n---\n{}", "x".repeat(600 * 1024)));
    let error = Prompts::load(folder.path()).unwrap_err().to_string();
    assert!(error.contains("a.md has 524289 bytes; at most 524288 are read"), "{error}");
}

#[test]
fn a_folder_takes_the_place_of_built_in_prompts() {
    let folder = tempfile::tempdir().unwrap();
    let name = "reasoning/zero_shot_cot_reason";
    let path = builtin::write(name, folder.path()).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), builtin::source(name).unwrap());
    assert!(
        matches!(builtin::write(name, folder.path()).unwrap_err(), Error::Io { .. }),
        "nothing is overwritten"
    );
    let prompts = Prompts::load(folder.path()).unwrap();
    assert_eq!(prompts.get(name).unwrap().content_hash(), builtin::prompt(name).content_hash());

    fs::write(&path, "---\nvariables: [question]\n---\nMine: {{ question }}").unwrap();
    let reload = prompts.reload().unwrap();
    assert_eq!((reload.changed.len(), reload.failed.len()), (1, 0), "{reload:?}");
    assert_eq!(prompts.get(name).unwrap().turns().next().unwrap().1, "Mine: {{ question }}");
    assert_eq!(prompts.names(), Prompts::built_in().names());
    assert!(
        builtin::write("reasoning/zero_shot_cto", folder.path())
            .unwrap_err()
            .to_string()
            .contains("did you mean")
    );
}

#[test]
fn a_reload_says_what_changed_and_keeps_what_was_good() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "same.md", "---\n---\nsame");
    write(folder.path(), "broken.md", "---\n---\ngood");
    write(folder.path(), "gone.md", "---\n---\ngone");
    write(folder.path(), "uses.md", "---\nvariables: [x]\n---\n{% include 'parts/p' %}");
    write(folder.path(), "parts/p.jinja", "old {{ x }}");
    let prompts = Prompts::load(folder.path()).unwrap();
    let other = prompts.clone();
    let held = prompts.get("uses").unwrap();
    assert!(prompts.reload().unwrap().is_empty());

    write(folder.path(), "broken.md", "---\n---\n{% if %}");
    write(folder.path(), "new.md", "---\n---\nnew");
    write(folder.path(), "parts/p.jinja", "new {{ x }}");
    fs::remove_file(folder.path().join("gone.md")).unwrap();
    let reload = prompts.reload().unwrap();
    let shown = |paths: &[std::path::PathBuf]| {
        paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>()
    };
    assert_eq!(shown(&reload.added), ["new.md"]);
    assert_eq!(shown(&reload.changed), ["uses.md"]);
    assert_eq!(shown(&reload.removed), ["gone.md"]);
    assert_eq!(reload.failed.len(), 1);
    assert!(
        reload.failed[0].to_string().starts_with("broken.md:3: the template does not parse"),
        "{}",
        reload.failed[0]
    );
    assert_eq!(
        (said(&other, "broken"), said(&other, "uses"), said(&other, "new")),
        ("good".into(), "new X".into(), "new".into())
    );
    assert!(other.get("gone").is_err());
    assert_eq!(held.render(json!({ "x": "X" })).unwrap()[0].content, "old X", "what is held stays as it was");

    write(folder.path(), "parts/p.jinja", "{{");
    let reload = prompts.reload().unwrap();
    assert_eq!(reload.failed.len(), 2, "{reload:?}");
    assert_eq!(said(&prompts, "uses"), "new X");
}

#[test]
fn readers_never_see_half_a_change() {
    let folder = tempfile::tempdir().unwrap();
    let put = |text: &str| {
        let part = folder.path().join("p.jinja.new");
        fs::write(&part, text).unwrap();
        fs::rename(part, folder.path().join("p.jinja")).unwrap();
    };
    put("0");
    write(folder.path(), "a.md", "---\n---\n{% include 'p' %}{% include 'p' %}");
    let prompts = Prompts::load(folder.path()).unwrap();
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            for _ in 0..2_000 {
                let text = said(&prompts, "a");
                assert_eq!(text[..text.len() / 2], text[text.len() / 2..]);
            }
        });
        for round in 0..50 {
            put(&round.to_string());
            assert!(prompts.reload().unwrap().failed.is_empty());
        }
        reader.join().unwrap();
    });
    assert_eq!(said(&prompts, "a"), "4949");
}

#[cfg(feature = "watch")]
#[test]
fn a_watched_folder_is_read_again_when_it_changes() {
    use std::sync::mpsc;
    use std::time::Duration;

    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "a.md", "---\n---\nold");
    let prompts = Prompts::load(folder.path()).unwrap();
    let (send, heard) = mpsc::channel();
    let watch = prompts.watch(move |reload| send.send(reload).unwrap()).unwrap();
    write(folder.path(), "a.md", "---\n---\nnew");
    let mut changed = 0;
    while said(&prompts, "a") != "new" {
        changed += heard.recv_timeout(Duration::from_secs(20)).unwrap().unwrap().changed.len();
    }
    drop(watch);
    write(folder.path(), "a.md", "---\n---\nnewest");
    // The thread ends with the watch, and drops the sender.
    while let Ok(reload) = heard.recv_timeout(Duration::from_secs(20)) {
        changed += reload.unwrap().changed.len();
    }
    assert!(changed > 0);
    assert!(Prompts::built_in().watch(|_| {}).is_err());
}
