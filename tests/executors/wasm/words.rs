//! Counts how often each word of the files below /inputs occurs, and writes /outputs/rust.txt.

use std::collections::HashMap;
use std::{env, fs, process};

fn main() {
    let mut counts: HashMap<String, usize> = HashMap::new();
    for entry in fs::read_dir("/inputs").expect("inputs") {
        let text = fs::read_to_string(entry.expect("entry").path()).expect("text");
        for word in text.split_whitespace() {
            *counts.entry(word.to_owned()).or_default() += 1;
        }
    }
    let arguments: Vec<String> = env::args().skip(1).collect();
    let greeting = env::var("GREETING").unwrap_or_default();
    println!("rust: {arguments:?} {greeting} {}", counts.len());
    fs::write("/outputs/rust.txt", "written by Rust\n").expect("outputs");
    process::exit(7);
}
