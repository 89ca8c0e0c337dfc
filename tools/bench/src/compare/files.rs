//! The results on disk: each run in a folder of its own, which no other run overwrites.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{growth, growth_picture, machine::slug, picture, results::Results};

/// Writes them below `root`; returns the folder.
pub(super) fn write(results: &Results, root: &Path) -> io::Result<PathBuf> {
    let name = format!("{}-{}", results.at.format("%Y-%m-%d"), slug(&results.machine.cpu));
    let folder = new_folder(root, &name)?;
    fs::write(folder.join("results.md"), results.text())?;
    fs::write(folder.join("results.json"), format!("{:#}\n", results.json()))?;
    if picture::is_measured(&results.measurements) {
        fs::write(folder.join("throughput.svg"), picture::draw(results))?;
    }
    if growth::is_measured(&results.measurements) {
        fs::write(folder.join("growth.svg"), growth_picture::draw(results))?;
    }
    Ok(folder)
}

/// Creates `<name>`, or `<name>-2`, `<name>-3` and so on if it exists.
fn new_folder(root: &Path, name: &str) -> io::Result<PathBuf> {
    fs::create_dir_all(root)?;
    let mut folder = root.join(name);
    for number in 2.. {
        match fs::create_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                folder = root.join(format!("{name}-{number}"));
            }
            created => return created.map(|()| folder),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::results::tests::results;

    #[test]
    fn no_run_overwrites_another() {
        let root = std::env::temp_dir().join(format!("firstcome-results-{}", std::process::id()));
        let folders = [(); 3].map(|()| write(&results(), &root).unwrap());
        let names = folders.map(|folder| {
            assert_eq!(fs::read_dir(&folder).unwrap().count(), 3);
            folder.file_name().unwrap().to_str().unwrap()[10..].to_owned()
        });
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(names, ["-a-b", "-a-b-2", "-a-b-3"]);
    }
}
