//! Labelled texts: files, labels of every kind, and the data set that the examples use.
#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use llmkit_core::Tokenizer;
use llmkit_peft::Error;
use llmkit_peft::data::{Label, LabelEncoder, LabelledText, TextLabel, label_names, read_labelled};

fn file(name: &str, content: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, content).unwrap();
    (folder, path)
}

#[test]
fn jsonl_and_csv_hold_the_same_rows() {
    let (_json, json) =
        file("a.jsonl", "{\"text\":\"one, two\",\"label\":\"b\"}\n\n{\"text\":\"three\",\"label\":\"2\"}\n");
    let (_csv, csv) = file("a.CSV", "\u{feff}label,text\nb,\"one, two\"\n\n2,three\n");
    let (json, csv) = (read_labelled(json).unwrap(), read_labelled(csv).unwrap());
    let lines = |rows: &[LabelledText]| rows.iter().map(|row| row.line).collect::<Vec<_>>();
    assert_eq!((lines(&json), lines(&csv)), (vec![1, 3], vec![2, 4]));
    for rows in [&json, &csv] {
        let read: Vec<_> = rows.iter().map(|row| (row.text.as_str(), row.label.clone())).collect();
        assert_eq!(read, [("one, two", TextLabel::Name("b".into())), ("three", TextLabel::Name("2".into()))]);
        assert!(rows.iter().all(|row| row.pair.is_none()));
    }
    // Beside a name, a number is a name.
    assert_eq!(label_names(&csv), ["2", "b"]);
    let (_csv, csv) = file("a.csv", "label,text\n1.5,one\n-2,two\n");
    let labels: Vec<_> = read_labelled(csv).unwrap().into_iter().map(|row| row.label).collect();
    assert_eq!(labels, [TextLabel::Number(1.5), TextLabel::Number(-2.0)]);
}

#[test]
fn malformed_rows_are_named() {
    for (name, content, line) in [
        ("a.jsonl", "{\"text\":\"a\",\"label\":\"x\"}\n{\"text\":\"a\"}\n", 2),
        ("a.jsonl", "{\"text\":\" \",\"label\":\"x\"}\n", 1),
        ("a.csv", "text,kind\na,b\n", 1),
        ("a.csv", "text,label\na,b,c\n", 2),
        ("a.csv", "text,label\n\"a,b\n", 2),
    ] {
        let (_folder, path) = file(name, content);
        let error = read_labelled(path).unwrap_err();
        assert!(matches!(error, Error::Data { line: found, .. } if found == line), "{content:?}: {error}");
    }
    let (_folder, empty) = file("a.csv", "text,label\n");
    assert!(matches!(read_labelled(empty), Err(Error::NoData { .. })));
}

fn tokenizer() -> Tokenizer {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../llmkit-core/tests/fixtures");
    Tokenizer::from_file(fixtures.join("sentence/base/tokenizer.json")).unwrap()
}

#[test]
fn labels_become_what_the_classifier_learns() {
    let tokenizer = tokenizer();
    let encode = |labels: &[&str], label| {
        let labels: Vec<String> = labels.iter().map(|label| (*label).to_owned()).collect();
        let row = LabelledText { text: "some words".into(), pair: None, label, line: 7 };
        let encoder = LabelEncoder::new(&tokenizer, &labels, 64).unwrap();
        encoder.encode(&[row], Path::new("file")).map(|data| data.examples[0].label.clone())
    };
    let three = ["cold", "warm", "hot"];
    assert_eq!(encode(&three, TextLabel::Name("hot".into())).unwrap(), Label::Class(2));
    assert_eq!(encode(&three, TextLabel::Number(1.0)).unwrap(), Label::Class(1));
    assert_eq!(encode(&["1", "0"], TextLabel::Number(0.0)).unwrap(), Label::Class(1));
    assert_eq!(encode(&["score"], TextLabel::Number(1.5)).unwrap(), Label::Values(vec![1.5]));
    let several = TextLabel::Names(vec!["hot".into(), "cold".into()]);
    assert_eq!(encode(&three, several).unwrap(), Label::Values(vec![1.0, 0.0, 1.0]));
    assert_eq!(encode(&three, TextLabel::Names(Vec::new())).unwrap(), Label::Values(vec![0.0; 3]));
    // Of classes with numbers for names, none is meant by its place.
    assert!(encode(&["1", "2", "3"], TextLabel::Number(0.0)).is_err());
    for wrong in [
        TextLabel::Name("tepid".into()),
        TextLabel::Number(3.0),
        TextLabel::Number(0.5),
        TextLabel::Names(vec!["tepid".into()]),
        TextLabel::Numbers(vec![1.0]),
    ] {
        let error = encode(&three, wrong.clone()).unwrap_err();
        assert!(matches!(error, Error::Data { line: 7, .. }), "{wrong:?}: {error}");
    }
}

#[test]
fn long_texts_are_cut_and_counted() {
    let tokenizer = tokenizer();
    let row =
        |text: &str| LabelledText { text: text.into(), pair: None, label: TextLabel::Number(0.0), line: 1 };
    let rows = [row("a few words"), row(&"many words ".repeat(50))];
    let labels = ["a".to_owned(), "b".to_owned()];
    let data = LabelEncoder::new(&tokenizer, &labels, 16).unwrap().encode(&rows, Path::new("file")).unwrap();
    assert_eq!(data.truncated, 1);
    assert!(data.examples[0].ids.len() < 16 && data.examples[1].ids.len() == 16);
    assert!(data.examples.iter().all(|example| example.ids.len() == example.type_ids.len()));
}

#[test]
fn the_categories_are_equally_frequent_and_apart() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/data/wordnet-categories");
    let mut texts = std::collections::BTreeSet::new();
    for (name, each) in [("train.jsonl", 150), ("heldout.jsonl", 40)] {
        let rows = read_labelled(folder.join(name)).unwrap();
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for row in rows {
            let TextLabel::Name(label) = row.label else { panic!("{:?}", row.label) };
            *counts.entry(label).or_default() += 1;
            assert!(texts.insert(row.text), "a definition occurs twice");
        }
        assert_eq!(counts.len(), 8);
        assert!(counts.values().all(|count| *count == each), "{counts:?}");
    }
}
