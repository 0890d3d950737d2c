//! Rules for source files: no long file in any package, and no circle of imports in what is deployed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use documents::workspace;

const MAX_LINES: usize = 500;

/// Source files of a package by module, such as `crate::alerts::text`. That of `lib.rs` is `crate`.
type Sources = BTreeMap<String, String>;

/// Reads the source files of each package, by the package's path in the workspace.
fn packages() -> anyhow::Result<BTreeMap<String, Sources>> {
    let mut packages = BTreeMap::new();
    for folder in ["", "functions", "tests"] {
        for entry in fs::read_dir(workspace().join(folder))? {
            let package = Path::new(folder).join(entry?.file_name());
            let sources = workspace().join(&package).join("src");
            if sources.is_dir() {
                read(&sources, "crate", packages.entry(package.display().to_string()).or_default())?;
            }
        }
    }
    Ok(packages)
}

fn read(folder: &Path, parent: &str, sources: &mut Sources) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_stem().unwrap_or_default().display().to_string();
        let module = if name == "lib" { parent.to_owned() } else { format!("{parent}::{name}") };
        if path.is_dir() {
            read(&path, &module, sources)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            sources.insert(module, fs::read_to_string(&path)?);
        }
    }
    Ok(())
}

/// Adds the paths that some code begins with: one, or several in braces. Returns the rest of the code.
fn expand<'c>(start: &str, code: &'c str, paths: &mut Vec<String>) -> &'c str {
    let end = code.find(|character: char| !character.is_alphanumeric() && !"_:".contains(character));
    let (path, mut rest) = code.split_at(end.unwrap_or(code.len()));
    let path = format!("{start}{path}");
    if !path.ends_with("::") {
        paths.push(path);
        return rest;
    }
    while rest.starts_with(['{', ',']) {
        rest = expand(&path, &rest[1..], paths);
    }
    rest.strip_prefix('}').unwrap_or(rest)
}

/// Returns the modules that each module uses outside of its tests.
fn imports(sources: &Sources) -> BTreeMap<&str, BTreeSet<&str>> {
    let module_of = |path: &str| {
        let ends = path.match_indices("::").map(|(at, _)| at).chain([path.len()]);
        ends.filter_map(|end| sources.get_key_value(&path[..end])).last().map_or("", |(module, _)| module)
    };
    let imports_of = |module: &str, text: &str| {
        let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
        let words: Vec<_> =
            text.lines().filter_map(|line| line.split("//").next()).flat_map(str::split_whitespace).collect();
        let code = words.join(" ").replace("{ ", "{").replace(", ", ",").replace(" }", "}");
        let parent = module.rsplit_once("::").map_or("", |(parent, _)| parent);
        let children = sources.keys().filter_map(|name| name.strip_prefix(module)?.strip_prefix("::"));
        let children = children.map(|child| (child, format!("{module}::{child}")));
        let mut paths = Vec::new();
        for (first, start) in children.chain([("crate", "crate".to_owned()), ("super", parent.to_owned())]) {
            for (at, _) in code.match_indices(&format!("{first}::")) {
                if !code[..at].ends_with(|before: char| before.is_alphanumeric() || "_:".contains(before)) {
                    expand(&start, &code[at + first.len()..], &mut paths);
                }
            }
        }
        paths.iter().map(|path| module_of(path)).filter(|import| *import != module).collect()
    };
    sources.iter().map(|(module, text)| (module.as_str(), imports_of(module, text))).collect()
}

/// Returns a circle of modules each of which uses the next, if there is one.
fn circle(sources: &Sources) -> Option<String> {
    let mut left = imports(sources);
    // Removes modules that use no remaining module: they are in no circle.
    while let Some(module) = left.keys().copied().find(|it| left[it].iter().all(|import| !left.contains_key(import))) {
        left.remove(module);
    }
    let mut walk = vec![*left.keys().next()?];
    loop {
        let next = left[walk.last()?].iter().copied().find(|import| left.contains_key(import))?;
        let begin = walk.iter().position(|module| *module == next);
        walk.push(next);
        if let Some(begin) = begin {
            return Some(walk[begin..].join(" -> "));
        }
    }
}

#[test]
fn no_source_file_is_long() -> anyhow::Result<()> {
    let mut long = Vec::new();
    for (package, sources) in packages()? {
        let lines = sources.iter().map(|(module, text)| (format!("{package} {module}"), text.lines().count()));
        long.extend(lines.filter(|(_, lines)| *lines > MAX_LINES));
    }
    assert!(long.is_empty(), "more than {MAX_LINES} lines: {long:#?}");
    Ok(())
}

#[test]
fn no_two_files_of_a_deployed_package_need_each_other() -> anyhow::Result<()> {
    let packages = packages()?.into_iter().filter(|(package, _)| !package.starts_with("tests/"));
    let circles: Vec<_> = packages.filter_map(|(package, sources)| Some((package, circle(&sources)?))).collect();
    assert!(circles.is_empty(), "{circles:#?}");
    Ok(())
}

#[test]
fn a_circle_of_imports_is_found_and_named() {
    let sources = |second: &str| {
        let texts = [
            ("crate", "mod a;"),
            ("crate::a", "use crate::{\n    x,\n    a::{b::{B, C}, c},\n};\nfn f() { d::e() }"),
            ("crate::a::b", second),
            ("crate::a::d", "use crate::a::b::B;"),
        ];
        texts.map(|(module, text)| (module.to_owned(), text.to_owned())).into()
    };
    for second in ["use super::A;", "use crate::a::{A, b};", "fn f() -> crate::a::A { }"] {
        assert_eq!(circle(&sources(second)).as_deref(), Some("crate::a -> crate::a::b -> crate::a"), "{second}");
    }
    assert_eq!(circle(&sources("use super::d::D;")).as_deref(), Some("crate::a::b -> crate::a::d -> crate::a::b"));
    assert_eq!(circle(&sources("// crate::a\n#[cfg(test)]\nmod tests { use crate::a; }")), None);
}
