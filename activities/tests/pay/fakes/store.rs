//! Books that outlive their server: a file to which every change is appended before anybody hears of it.

use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{Read as _, Write as _},
    path::Path,
};

pub struct Store {
    file: File,
    rows: BTreeMap<String, BTreeMap<String, Value>>,
    next: u64,
}

impl Store {
    /// The books in this file, as they were left; a line that was cut off was never told of.
    pub fn open(path: &Path) -> Self {
        let mut file = OpenOptions::new().create(true).read(true).append(true).open(path).unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        let mut store = Self { file, rows: BTreeMap::new(), next: 1 };
        for line in text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
            let word = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
            store.rows.entry(word("kind")).or_default().insert(word("id"), line["row"].clone());
            store.next += 1;
        }
        store
    }

    pub fn put(&mut self, kind: &str, id: &str, row: &impl Serialize) {
        let row = serde_json::to_value(row).unwrap();
        let line = json!({"kind": kind, "id": id, "row": row});
        writeln!(self.file, "{line}").unwrap();
        self.file.sync_data().unwrap();
        self.rows.entry(kind.to_owned()).or_default().insert(id.to_owned(), row);
        self.next += 1;
    }

    /// Rows of this kind are there no more, until the file is opened again.
    pub fn forget(&mut self, kind: &str) {
        self.rows.remove(kind);
    }

    pub fn get<T: DeserializeOwned>(&self, kind: &str, id: &str) -> Option<T> {
        let row = self.rows.get(kind)?.get(id)?.clone();
        Some(serde_json::from_value(row).unwrap())
    }

    /// In the order of their ids, which is that of their making.
    pub fn all<T: DeserializeOwned>(&self, kind: &str) -> Vec<T> {
        let rows = self.rows.get(kind).into_iter().flat_map(|rows| rows.values());
        rows.map(|row| serde_json::from_value(row.clone()).unwrap()).collect()
    }

    /// A number that no other row has.
    pub fn number(&self) -> u64 {
        self.next
    }
}
