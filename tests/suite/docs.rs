//! The pages lead where they say: every link to a file or a heading of ours exists.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

/// README and everything below `docs`.
fn pages() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pages = vec![root.join("README.md"), root.join("CHANGELOG.md")];
    let mut dirs = vec![root.join("docs")];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).expect("readable") {
            let path = entry.expect("readable").path();
            match path.extension() {
                _ if path.is_dir() => dirs.push(path),
                Some(end) if end == "md" => pages.push(path),
                _ => {}
            }
        }
    }
    pages
}

fn read(page: &Path) -> String {
    fs::read_to_string(page).unwrap_or_else(|error| panic!("{}: {error}", page.display()))
}

/// The lines that are text: no code, indented or fenced, and no code within a line.
fn prose(text: &str) -> Vec<String> {
    let mut is_fenced = false;
    let mut lines = Vec::new();
    for line in text.lines() {
        if line.starts_with("```") {
            is_fenced = !is_fenced;
        } else if !is_fenced && !line.starts_with("    ") {
            lines.push(line.to_owned());
        }
    }
    lines
}

/// Targets of `[text](target)`; those of other sites are not looked at.
fn links(line: &str) -> Vec<String> {
    let outside_code: String = line.split('`').step_by(2).collect::<Vec<_>>().join("`");
    let after = outside_code.split("](").skip(1);
    let targets = after.filter_map(|rest| rest.split_once(')').map(|(target, _)| target));
    let ours = targets.filter(|target| !target.contains("://"));
    ours.map(str::to_owned).collect()
}

/// The name under which a heading can be linked: small letters, digits and hyphens.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn anchors(page: &Path) -> HashSet<String> {
    let lines = prose(&read(page));
    let headings = lines.iter().filter(|line| line.starts_with('#'));
    headings.map(|heading| anchor(heading)).collect()
}

#[test]
fn every_link_leads_to_a_file_and_a_heading() {
    let mut seen = 0;
    for page in pages() {
        for line in prose(&read(&page)) {
            for link in links(&line) {
                let (file, heading) = link.split_once('#').unwrap_or((&link, ""));
                let target = match file {
                    "" => page.clone(),
                    file => page.parent().expect("it is a file").join(file),
                };
                let at = format!("{} links to {link}", page.display());
                assert!(target.exists(), "{at}, which is not there");
                assert!(
                    heading.is_empty() || anchors(&target).contains(heading),
                    "{at}, and there is no such heading"
                );
                seen += 1;
            }
        }
    }
    assert!(seen > 10, "only {seen} links were found");
}

#[test]
fn headings_are_named_as_readers_of_markdown_name_them() {
    for (heading, name) in [
        ("## 2. Slot", "2-slot"),
        ("# What is on the disk", "what-is-on-the-disk"),
        (
            "### `data repair`, step by step",
            "data-repair-step-by-step",
        ),
    ] {
        assert_eq!(anchor(heading), name);
    }
    assert_eq!(
        links("see [a](b.md#c), `[no](d)` and [e](http://f)"),
        ["b.md#c"]
    );
}
