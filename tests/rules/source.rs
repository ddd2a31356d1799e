//! Rust source as the rules see it: comments and literals blanked out, lines kept, and the
//! parts that only tests compile known as such. Not a parser: it knows just enough of the
//! lexical grammar (nested comments, raw strings, character literals against lifetimes).

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// One source file.
pub(crate) struct Source {
    /// Path from the repository's root.
    pub(crate) path: String,
    /// As written.
    pub(crate) text: String,
    /// Comments and literals replaced by spaces.
    pub(crate) code: String,
    /// `code` without what stands behind `#[cfg(test)]`; empty when the whole file does.
    pub(crate) shipped: String,
}

/// The repository's root.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests/ lies in the repository")
        .into()
}

/// Every Rust file below `folder` (relative to the root), sorted.
pub(crate) fn sources(folder: &str) -> Vec<Source> {
    let mut paths = Vec::new();
    walk(&root().join(folder), &mut paths);
    paths.sort();
    let mut found: Vec<(PathBuf, Source)> =
        paths.into_iter().map(|p| (p.clone(), read(&p))).collect();
    let test_only: BTreeSet<PathBuf> = found
        .iter()
        .flat_map(|(path, source)| test_module_files(path, &source.code))
        .collect();
    for (path, source) in &mut found {
        let in_test_module = test_only
            .iter()
            .any(|t| *path == *t || path.starts_with(t.with_extension("")));
        let in_tests_folder = path
            .components()
            .any(|c| c.as_os_str() == "tests" || c.as_os_str() == "benches");
        if in_test_module || (in_tests_folder && !folder.starts_with("tests")) {
            source.shipped.clear();
        }
    }
    found.into_iter().map(|(_, source)| source).collect()
}

fn walk(folder: &Path, out: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            let name = entry.file_name();
            if name != "target" && name != "vendor" && name != ".git" {
                walk(&path, out);
            }
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
}

fn read(path: &Path) -> Source {
    let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let code = blank(&text);
    let shipped = without_test_blocks(&code);
    let path = path
        .strip_prefix(root())
        .unwrap_or(path)
        .display()
        .to_string();
    Source {
        path,
        text,
        code,
        shipped,
    }
}

/// Comments and literals become spaces; newlines stay.
pub(crate) fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = token_end(bytes, at);
        if end > at {
            for b in &mut out[at..end] {
                if *b != b'\n' {
                    *b = b' ';
                }
            }
            at = end;
        } else {
            at += 1;
        }
    }
    String::from_utf8(out).expect("whole tokens were blanked")
}

/// Where the comment or literal that begins at `at` ends; `at` if none begins there.
fn token_end(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    let after_word = at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_');
    if rest.starts_with(b"//") {
        return at + rest.iter().position(|&b| b == b'\n').unwrap_or(rest.len());
    }
    if rest.starts_with(b"/*") {
        return at + nested_comment(rest);
    }
    if rest[0] == b'"' {
        return at + quoted(rest, b'"');
    }
    if !after_word && matches!(rest[0], b'r' | b'b' | b'c') {
        let prefix = rest
            .iter()
            .take_while(|b| matches!(b, b'r' | b'b' | b'c'))
            .count();
        let hashes = rest[prefix..].iter().take_while(|&&b| b == b'#').count();
        if rest.get(prefix + hashes) == Some(&b'"') && rest[..prefix].contains(&b'r') {
            return at + prefix + hashes + raw_string(&rest[prefix + hashes..], hashes);
        }
    }
    if rest[0] == b'\'' && is_char_literal(rest) {
        return at + quoted(rest, b'\'');
    }
    at
}

fn nested_comment(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        if rest[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                break;
            }
        } else {
            at += 1;
        }
    }
    at
}

fn quoted(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            b if b == quote => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

fn raw_string(rest: &[u8], hashes: usize) -> usize {
    (1..rest.len())
        .find(|&at| {
            rest[at] == b'"'
                && rest[at + 1..]
                    .iter()
                    .take(hashes)
                    .filter(|&&b| b == b'#')
                    .count()
                    == hashes
        })
        .map_or(rest.len(), |at| at + 1 + hashes)
}

/// `'x'` or `'\n'`, not a lifetime: a quote follows the one character.
fn is_char_literal(rest: &[u8]) -> bool {
    if rest.get(1) == Some(&b'\\') {
        return true;
    }
    let text = String::from_utf8_lossy(&rest[1..rest.len().min(8)]);
    text.chars().nth(1) == Some('\'')
}

/// Blanks every item behind `#[cfg(test)]` (and `#[cfg(all(test, …))]`).
fn without_test_blocks(code: &str) -> String {
    let mut out = code.to_owned().into_bytes();
    for (start, attribute_end) in test_attributes(code) {
        let end = item_end(&code[attribute_end..]);
        for b in &mut out[start..attribute_end + end] {
            if *b != b'\n' {
                *b = b' ';
            }
        }
    }
    String::from_utf8(out).expect("ASCII was replaced")
}

/// Where the thing behind an attribute ends: an item at its block or semicolon, a field or a
/// statement at its comma or semicolon.
fn item_end(item: &str) -> usize {
    const ITEMS: &[&str] = &[
        "pub",
        "mod",
        "fn",
        "use",
        "impl",
        "struct",
        "enum",
        "trait",
        "const",
        "static",
        "type",
        "extern",
        "unsafe",
        "async",
        "macro_rules",
        "#",
    ];
    let text = item.trim_start();
    if !ITEMS.iter().any(|word| text.starts_with(word)) {
        return item.find([',', ';']).map_or(item.len(), |at| at + 1);
    }
    match (item.find('{'), item.find(';')) {
        (Some(b), Some(s)) if s < b => s + 1,
        (Some(b), _) => block_end(item, b),
        (None, Some(s)) => s + 1,
        (None, None) => item.len(),
    }
}

fn test_attributes(code: &str) -> Vec<(usize, usize)> {
    ["#[cfg(test)]", "#[cfg(all(test"]
        .iter()
        .flat_map(|attribute| code.match_indices(attribute))
        .filter_map(|(at, _)| code[at..].find(']').map(|end| (at, at + end + 1)))
        .collect()
}

/// One past the brace that closes the one at `open`.
pub(crate) fn block_end(code: &str, open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, b) in code.bytes().enumerate().skip(open) {
        match b {
            b'{' => depth += 1,
            b'}' => {
                depth -= 1;
                if depth == 0 {
                    return at + 1;
                }
            }
            _ => {}
        }
    }
    code.len()
}

/// Files of modules declared as `#[cfg(test)] mod name;`.
fn test_module_files(path: &Path, code: &str) -> Vec<PathBuf> {
    let stem = path.file_stem().unwrap_or_default();
    let folder = path.parent().unwrap_or(Path::new(""));
    let base = if ["lib", "main", "mod"].iter().any(|n| stem == *n) {
        folder.to_path_buf()
    } else {
        folder.join(stem)
    };
    test_attributes(code)
        .into_iter()
        .filter_map(|(_, end)| {
            let item = code[end..].trim_start();
            let item = item.strip_prefix("pub(crate) ").unwrap_or(item);
            let name: String = item
                .strip_prefix("mod ")?
                .chars()
                .take_while(|&c| c != ';')
                .collect();
            name.chars()
                .all(|c| c.is_alphanumeric() || c == '_')
                .then(|| base.join(format!("{name}.rs")))
        })
        .collect()
}

/// The 1-based line of byte `at`.
pub(crate) fn line_of(code: &str, at: usize) -> usize {
    code.as_bytes()[..at]
        .iter()
        .filter(|&&b| b == b'\n')
        .count()
        + 1
}

#[test]
fn comments_and_literals_are_blanked_and_lifetimes_are_not() {
    let text = "a /* x /* y */ z */ b \"q\\\" unsafe\" r#\"un\"safe\"# 'u' '\\'' fn f<'a>(x: &'a u8) // tail\nc";
    let code = blank(text);
    assert_eq!(code.len(), text.len());
    assert!(!code.contains("unsafe") && !code.contains("safe\"") && !code.contains("tail"));
    assert!(code.contains("fn f<'a>(x: &'a u8)") && code.ends_with("\nc"));
}

#[test]
fn what_only_tests_compile_is_not_shipped() {
    let code = "fn a() {}\n#[cfg(test)]\nmod tests { fn b() { if x {} } }\nfn c() { S {\n#[cfg(test)]\nbad: 1, };}";
    let shipped = without_test_blocks(code);
    assert!(shipped.contains("fn a") && shipped.contains("fn c") && !shipped.contains("fn b"));
    assert!(shipped.ends_with("};}") && !shipped.contains("bad"));
}
