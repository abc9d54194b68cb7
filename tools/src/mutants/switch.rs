//! All mutants in one build: each changed function gets a copy that is called when its mutant is
//! switched on. Only in the scratch tree; production code knows no switches.
//!
//! What runs is the patched function to the letter. A patch that changes more than the insides of
//! functions, or one that answers an unnamed type, is left to be built by itself.

use super::patch::Patch;
use super::tree::Tree;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::ops::Range;

/// The process environment names the mutant that is on, by its number.
pub const VARIABLE: &str = "STANDFAST_MUTANT";

/// Lies in the lowest crate, so that all may ask it.
const SWITCH: &str = r#"//! Which planted bug is switched on.
static ON: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
pub fn on(number: u32) -> bool {
    let read = || std::env::var("STANDFAST_MUTANT").ok()?.parse().ok();
    *ON.get_or_init(|| read().unwrap_or(0)) == number
}
"#;

/// Plants what can be switched; answers the number of each patch that was, by its name.
pub fn plant(tree: &Tree, patches: &[Patch]) -> anyhow::Result<BTreeMap<String, u32>> {
    tree.restore()?;
    let mut planted = BTreeMap::new();
    // By file and function: the mutants' numbers and what each makes of it.
    let mut copies: BTreeMap<(String, usize), Vec<(u32, String)>> = BTreeMap::new();
    for (number, patch) in (1..).zip(patches.iter().filter(|patch| patch.net.is_none())) {
        let before: Vec<String> = read(tree, patch)?;
        tree.apply(patch)?
            .map_err(|why| anyhow::anyhow!("{} does not apply: {why}", patch.name))?;
        let after: Vec<String> = read(tree, patch)?;
        tree.restore()?;
        let changed: Option<Vec<_>> = before
            .iter()
            .zip(&after)
            .map(|(a, b)| compare(a, b))
            .collect();
        let Some(changed) = changed else { continue };
        for (name, functions) in patch.files.iter().zip(changed) {
            for (at, text) in functions {
                let key = (name.clone(), at);
                copies.entry(key).or_default().push((number, text));
            }
        }
        planted.insert(patch.name.clone(), number);
    }
    let mut files: Vec<&String> = copies.keys().map(|(name, _)| name).collect();
    files.dedup();
    for name in files {
        let text = std::fs::read_to_string(tree.dir.join(name))?;
        let of = |at: usize| {
            copies
                .get(&(name.clone(), at))
                .map_or(&[][..], Vec::as_slice)
        };
        let switch = match name.starts_with("wal/") {
            true => "crate::mutant",
            false => "standfast_wal::mutant",
        };
        std::fs::write(tree.dir.join(name), switched(&text, of, switch))?;
    }
    let lib = tree.dir.join("wal/src/lib.rs");
    let text = std::fs::read_to_string(&lib)?;
    std::fs::write(lib, text + "\npub mod mutant;\n")?;
    std::fs::write(tree.dir.join("wal/src/mutant.rs"), SWITCH)?;
    Ok(planted)
}

fn read(tree: &Tree, patch: &Patch) -> anyhow::Result<Vec<String>> {
    let files = patch.files.iter();
    let texts = files.map(|name| std::fs::read_to_string(tree.dir.join(name)));
    Ok(texts.collect::<Result<_, _>>()?)
}

/// The functions that differ, by their place in the file, as they are after; `None` if something
/// differs that cannot be switched.
fn compare(before: &str, after: &str) -> Option<Vec<(usize, String)>> {
    let (before, after) = (Lines::of(before), Lines::of(after));
    if before.between() != after.between() || before.functions.len() != after.functions.len() {
        return None;
    }
    let mut changed = Vec::new();
    for (at, (old, new)) in before.functions.iter().zip(&after.functions).enumerate() {
        let (old, new) = (before.text(old), after.text(new));
        if old != new {
            call(&old, 0)?;
            changed.push((at, new));
        }
    }
    Some(changed)
}

/// A file with a switch in front of each function that has mutants, and their copies behind it.
fn switched<'a>(text: &str, of: impl Fn(usize) -> &'a [(u32, String)], switch: &str) -> String {
    let lines = Lines::of(text);
    let mut out = String::new();
    let mut next = 0;
    for (at, function) in lines.functions.iter().enumerate() {
        let copies = of(at);
        if copies.is_empty() {
            continue;
        }
        let own = lines.text(function);
        let body = function.start + header_lines(&own);
        out += &lines.join(next..body);
        for (number, _) in copies {
            let call = call(&own, *number).expect("was looked at before");
            writeln!(out, "if {switch}::on({number}) {{ return {call}; }}").expect("a string");
        }
        out += &lines.join(body..function.end);
        for (number, copy) in copies {
            let name = name_of(copy);
            let renamed = format!("fn {}", renamed(name, *number));
            out += &copy.replacen(&format!("fn {name}"), &renamed, 1);
        }
        next = function.end;
    }
    out + &lines.join(next..lines.lines.len())
}

fn renamed(name: &str, number: u32) -> String {
    format!("{name}__mutant{number}")
}

/// A file as lines, and where its outermost functions lie. Relies on rustfmt's layout.
struct Lines<'a> {
    lines: Vec<&'a str>,
    functions: Vec<Range<usize>>,
}

impl<'a> Lines<'a> {
    fn of(text: &'a str) -> Lines<'a> {
        let lines: Vec<&str> = text.split_inclusive('\n').collect();
        let mut functions = Vec::new();
        let mut at = 0;
        while at < lines.len() {
            let indent = lines[at].len() - lines[at].trim_start().len();
            let close = format!("{}}}\n", " ".repeat(indent));
            let header = is_function(lines[at]).then(|| {
                let ends = |line: &&str| line.trim_end().ends_with(['{', ';', '}']);
                lines[at..].iter().position(ends)
            });
            let has_body = |to: &usize| lines[at + to].trim_end().ends_with('{');
            let end = header.flatten().filter(has_body).and_then(|to| {
                let from = at + to;
                let end = lines[from..].iter().position(|line| *line == close)?;
                Some(from + end + 1)
            });
            match end {
                Some(end) => {
                    functions.push(at..end);
                    at = end;
                }
                None => at += 1,
            }
        }
        Lines { lines, functions }
    }

    fn join(&self, range: Range<usize>) -> String {
        self.lines[range].concat()
    }

    fn text(&self, function: &Range<usize>) -> String {
        self.join(function.clone())
    }

    /// Everything that lies in no function.
    fn between(&self) -> String {
        let inside = |at: usize| self.functions.iter().any(|function| function.contains(&at));
        let outside = (0..self.lines.len()).filter(|at| !inside(*at));
        outside.map(|at| self.lines[at]).collect()
    }
}

fn is_function(line: &str) -> bool {
    let mut words = line.trim_start();
    if let Some(rest) = words.strip_prefix("pub(") {
        words = rest.split_once(") ").map_or("", |(_, rest)| rest);
    }
    words
        .strip_prefix("pub ")
        .unwrap_or(words)
        .starts_with("fn ")
}

fn header_lines(function: &str) -> usize {
    let brace = |line: &str| line.trim_end().ends_with('{');
    function
        .lines()
        .position(brace)
        .expect("a function has a body")
        + 1
}

fn name_of(function: &str) -> &str {
    let rest = function.split_once("fn ").map_or("", |(_, rest)| rest);
    let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
    &rest[..end.unwrap_or(rest.len())]
}

/// How a function calls its copy with its own arguments; `None` where that cannot be said.
fn call(function: &str, number: u32) -> Option<String> {
    let header: String = function
        .split_inclusive('\n')
        .take(header_lines(function))
        .collect();
    let (open, close) = parameters(&header)?;
    if header[close..].contains("impl ") {
        return None; // Two functions answer two different types then.
    }
    let mut receiver = function.starts_with(' ').then_some("Self::");
    let mut arguments = Vec::new();
    for parameter in split(&header[open + 1..close], ',') {
        let parameter = parameter.trim();
        if matches!(parameter, "self" | "mut self" | "&self" | "&mut self") {
            receiver = Some("self.");
        } else if !parameter.is_empty() {
            let pattern = split(parameter, ':').first()?.replace("mut ", "");
            if pattern.contains('{') || pattern.trim() == "_" {
                return None;
            }
            arguments.push(pattern.trim().to_string());
        }
    }
    let name = renamed(name_of(function), number);
    let receiver = receiver.unwrap_or_default();
    let types = types(&header[..open], &header[open..close]);
    Some(format!("{receiver}{name}{types}({})", arguments.join(", ")))
}

/// The function's own type parameters, to be named in the call: not all follow from its arguments.
fn types(header: &str, parameters: &str) -> String {
    let Some((_, generics)) = header
        .split_once("fn ")
        .and_then(|(_, f)| f.split_once('<'))
    else {
        return String::new();
    };
    let generics = split(generics.trim_end().trim_end_matches('>'), ',');
    let names = generics
        .iter()
        .map(|one| one.split(':').next().unwrap_or(one).trim());
    let names: Vec<&str> = names.collect();
    // Lifetimes are not named, nor is what `impl` stands for.
    match names.iter().any(|name| name.starts_with('\'')) || parameters.contains("impl ") {
        true => String::new(),
        false => format!("::<{}>", names.join(", ")),
    }
}

/// Where the parameter list of a header opens and closes, behind the generics.
fn parameters(header: &str) -> Option<(usize, usize)> {
    let from = header.find("fn ")?;
    let mut depth = 0i32;
    let mut open = None;
    for (at, c) in header.char_indices().skip_while(|(at, _)| *at < from) {
        match c {
            '(' if depth == 0 => open = Some(at),
            ')' if depth == 1 && open.is_some() => return Some((open?, at)),
            _ => {}
        }
        depth += step(header, at, c);
    }
    None
}

/// Splits at a separator that stands in no brackets, and is not doubled.
fn split(text: &str, separator: char) -> Vec<&str> {
    let (mut parts, mut from, mut depth) = (Vec::new(), 0, 0i32);
    let doubled = format!("{separator}{separator}");
    for (at, c) in text.char_indices() {
        let double = text[at..].starts_with(&doubled) || text[..=at].ends_with(&doubled);
        if c == separator && depth == 0 && !double {
            parts.push(&text[from..at]);
            from = at + 1;
        }
        depth += step(text, at, c);
    }
    parts.push(&text[from..]);
    parts
}

/// What a character does to the depth of brackets; the `>` of an arrow is none.
fn step(text: &str, at: usize, c: char) -> i32 {
    match c {
        '(' | '[' | '<' => 1,
        '>' if text[..at].ends_with('-') => 0,
        ')' | ']' | '>' => -1,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "\
use a::B;

fn free<T: Fn(u8) -> u8>(mut x: u8, (a, b): (u8, T)) -> u8 {
    x + 1
}

impl B {
    pub(super) fn kept(&mut self, node: &mut a::Node, list: Vec<(u8, u8)>) {
        node.take(list);
    }

    fn given(&self) -> impl Iterator<Item = u8> {
        self.all()
    }
}
";

    #[test]
    fn a_changed_function_gets_a_copy_and_a_switch_and_nothing_else_changes() {
        let mutated = FILE.replace("x + 1", "x + 2");
        let changed = compare(FILE, &mutated).expect("inside a function");
        assert_eq!(changed.len(), 1);
        let copies = vec![(7, changed[0].1.clone())];
        let of = |at| if at == 0 { copies.as_slice() } else { &[] };
        let text = switched(FILE, of, "w");
        assert!(
            text.contains("if w::on(7) { return free__mutant7::<T>(x, (a, b)); }\n    x + 1\n")
        );
        assert!(text.contains("fn free__mutant7<T: Fn(u8) -> u8>(mut x: u8, (a, b): (u8, T))"));
        assert!(text.contains("    x + 2\n"));
        assert!(text.ends_with(&FILE[FILE.find("impl B").expect("there")..]));
    }

    #[test]
    fn a_method_calls_its_copy_by_its_receiver_and_what_cannot_be_switched_is_told() {
        let lines = Lines::of(FILE);
        let method = lines.text(&lines.functions[1]);
        let called = call(&method, 3).expect("it can be called");
        assert_eq!(called, "self.kept__mutant3(node, list)");
        assert_eq!(compare(FILE, &FILE.replace("all()", "most()")), None);
        assert_eq!(compare(FILE, &FILE.replace("use a", "use b")), None);
        assert_eq!(compare(FILE, FILE), Some(Vec::new()));
    }
}
