//! The programs that are measured: found, installed or built.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Where programs are, besides the places on the path.
const PLACES: [&str; 3] = ["/usr/bin", "/usr/sbin", "/usr/local/bin"];

/// The directory of the checkout this program was built from.
pub fn checkout() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.ancestors().nth(2).unwrap_or(own).to_path_buf()
}

/// The program, wherever it is.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(PLACES.iter().map(PathBuf::from));
    places
        .map(|place| place.join(program))
        .find(|path| path.is_file())
}

/// Finds a program that Debian brings in a package of the same name, or installs it where it may.
pub fn program(name: &str) -> Result<PathBuf> {
    if let Some(path) = find(name) {
        return Ok(path);
    }
    if !rustix::process::getuid().is_root() || find("apt-get").is_none() {
        bail!(
            "{name} is missing: install it (on Debian: apt-get install {name}), run this as root on \
             Debian, or leave it out with --system"
        );
    }
    eprintln!("installing {name}");
    apt_get(&["update", "-qq"])?;
    apt_get(&["install", "-y", "-qq", "--no-install-recommends", name])?;
    find(name).with_context(|| format!("the package {name} brought no program of that name"))
}

fn apt_get(arguments: &[&str]) -> Result<()> {
    let mut command = Command::new("apt-get");
    // Standard output is for the tables.
    command.args(arguments).stdout(std::io::stderr());
    let status = command.env("DEBIAN_FRONTEND", "noninteractive").status()?;
    match status.success() {
        true => Ok(()),
        false => bail!("apt-get {} ended with {status}", arguments.join(" ")),
    }
}

/// Our own program: the one that was named, or that of this checkout, built if need be.
pub fn tidings(named: Option<&Path>) -> Result<PathBuf> {
    if let Some(path) = named {
        let path = path.canonicalize();
        return path.with_context(|| format!("there is no {named:?}"));
    }
    let checkout = checkout();
    eprintln!("building tidings (release); the first time this takes minutes");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let target = checkout.join("target");
    let status = Command::new(cargo)
        .args(["build", "--release", "--locked", "--bin", "tidings"])
        .arg("--manifest-path")
        .arg(checkout.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(&target)
        .stdout(std::io::stderr())
        .status()
        .context("cannot start cargo: name the program with --tidings")?;
    match status.success() {
        true => Ok(target.join("release/tidings")),
        false => bail!("building tidings ended with {status}"),
    }
}

/// The first line of what a program says of its version.
pub fn version(program: &Path) -> String {
    let output = Command::new(program).arg("--version").output();
    let text = output.map(|output| {
        let bytes = if output.stdout.is_empty() {
            output.stderr
        } else {
            output.stdout
        };
        String::from_utf8_lossy(&bytes)
            .lines()
            .next()
            .unwrap_or_default()
            .trim()
            .to_owned()
    });
    text.unwrap_or_default()
}
